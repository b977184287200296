"""Ctrl-C and SIGTERM where they must not strike in the middle of something.

Python runs signal handlers in the main thread alone: elsewhere these functions change nothing.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def defer_ctrl_c() -> Iterator[None]:
    """Deliver a Ctrl-C only when the block is done; a handler of the user's own is left alone.

    An exception in the middle of a backward pass leaves the rest of the graph in autograd's queue,
    which is freed after Python has ended. Arrays of numpy's among it need Python's lock for that,
    which nobody releases any more: the process would print "interrupted" and hang.
    """
    if not in_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if received:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def on_sigterm(notice: Callable[[int], None]) -> Iterator[None]:
    """Call `notice(number)` for the first SIGTERM in the block; a second one acts as before it.

    Schedulers send SIGTERM before they take a machine away, and give some seconds to save.
    """
    if not in_main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: object) -> None:
        notice(number)
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def block_sigterm() -> Iterator[None]:
    """Block SIGTERM until the block is done; a process forked in it starts with SIGTERM blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # not POSIX
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept_sigterm_from_parent_only(worker_id: int) -> None:
    """End this worker process on a SIGTERM from its parent, and ignore all others.

    Schedulers send SIGTERM to every process of a run. A worker that died of it would take the
    parent along in the middle of the step after which that would have saved. Ignoring it is no
    way out: the parent ends its workers with the same signal, and then waits for them.

    Args:
        worker_id: unused; this is a `worker_init_fn` of torch's DataLoader.
    """
    if not hasattr(signal, "sigwaitinfo"):  # not POSIX, or macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
