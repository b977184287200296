"""Ctrl-C and SIGTERM where they must not strike in the middle of something.

Python runs signal handlers in the main thread alone: elsewhere these functions change nothing.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def handled(number: int, handle: Callable[[int], object]) -> Iterator[None]:
    """Call `handle(number)` for each such signal in the block."""
    outside = threading.current_thread() is not threading.main_thread()
    if outside or signal.getsignal(number) is None:  # None: something else than Python handles it
        yield
        return
    before = signal.signal(number, lambda number, frame: handle(number))
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def defer_ctrl_c() -> Iterator[None]:
    """Deliver a Ctrl-C only when the block is done, to whatever handles it.

    An exception in the middle of a backward pass leaves the rest of the graph in autograd's queue,
    which is freed after Python has ended. Arrays of numpy's among it need Python's lock for that,
    which nobody releases any more: the process would print "interrupted" and hang.
    """
    received: list[int] = []
    try:
        with handled(signal.SIGINT, received.append):
            yield
    finally:
        for number in received:
            signal.raise_signal(number)


@contextlib.contextmanager
def on_signal(number: int, notice: Callable[[int], None]) -> Iterator[None]:
    """Call `notice(number)` for the first such signal in the block; a second one acts as before it.

    Schedulers send SIGTERM before they take a machine away, and give some seconds to save. Where a
    Ctrl-C does not raise KeyboardInterrupt, its handler is the user's own and is left alone.
    """
    before = signal.getsignal(number)

    def first(number: int) -> None:
        signal.signal(number, before)
        notice(number)

    own = number == signal.SIGINT and before is not signal.default_int_handler
    with contextlib.nullcontext() if own else handled(number, first):
        yield


@contextlib.contextmanager
def block_termination() -> Iterator[None]:
    """Block SIGTERM and Ctrl-C until the block is done; a process forked in it starts like that."""
    if not hasattr(signal, "pthread_sigmask"):  # not POSIX
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept_sigterm_from_parent_only(worker_id: int) -> None:
    """End this worker process on a SIGTERM from its parent, and ignore all others, and Ctrl-C.

    Schedulers send SIGTERM to every process of a run, terminals send Ctrl-C to all of theirs. A
    worker that died of it would take the parent along in the middle of the step after which that
    would have saved. Ignoring SIGTERM is no way out: the parent ends its workers with the same
    signal, and then waits for them.

    Args:
        worker_id: unused; this is a `worker_init_fn` of torch's DataLoader.
    """
    if not hasattr(signal, "sigwaitinfo"):  # not POSIX, or macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
