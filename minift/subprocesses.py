"""One process that this one starts, and the pipes between them.

A worker is a fresh Python, started with `subprocess`; its pipes tell it what to do. It is no fork,
so threads, open devices and locks of the parent are not in its way; it does not import the
parent's `__main__`, so scripts need no main guard and notebooks work; and it imports torch only if
the function does. cloudpickle carries functions from `__main__` by value. The parent sees at once
that a worker died, as the end of its pipe; a worker sees in the same way that its parent died, and
ends, so that none is left behind.

`data/pool.py` and `notebook_launcher` start workers. The pipes between a process and the one that
it started are private to them, and the only place in minift where a pickle is read.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from subprocess import PIPE
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from minift.errors import MiniftError

# One thread for each worker: the workers are the parallelism.
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = {**dict.fromkeys(THREAD_COUNTS, "1"), "TOKENIZERS_PARALLELISM": "false"}


class WorkerDied(Exception):
    """The worker's pipe has ended."""


class UnsendableError(MiniftError, TypeError):
    """A function cannot be sent to another process."""


def encode_function(function: Callable[..., Any]) -> bytes:
    """Return a function as a worker takes it, with everything of `__main__` that it refers to."""
    try:
        return cloudpickle.dumps(function)
    except Exception as error:  # whatever some object's own pickling raises
        raise UnsendableError(f"{type(error).__name__}: {error}") from None


class Worker:
    """A process that calls one function for each task that it is sent.

    Args:
        function: from `encode_function`; called as `function(task, rank)`.
        rank: the number of this worker.
        environment: variables in which it differs from this process.
    """

    def __init__(
        self, function: bytes, rank: int, environment: Mapping[str, str] = ONE_THREAD
    ) -> None:
        self.function, self.rank = function, rank
        path = [str(folder) for folder in sys.path]
        code = f"import sys; sys.path[:] = {path!r}; import minift.subprocesses as s; s.main()"
        command, env = [sys.executable, "-c", code], {**os.environ, **environment}
        self.process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, env=env)

    def load(self) -> None:
        """Send the function, and return when the process is ready for tasks."""
        self.request((self.function, self.rank))

    def request(self, task: Any) -> Any:
        """Send one task and return its result.

        Raises:
            WorkerDied: instead of an answer. An exception in the worker is raised as it is.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(pickle.dumps(task))
            self.process.stdin.flush()
            succeeded, answer = pickle.load(self.process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise WorkerDied from None
        if not succeeded:
            raise answer
        return answer

    def end(self, patience: float = 0) -> str:
        """End the process if it does not end by itself within `patience` seconds.

        Returns:
            the signal or the exit code that it ended with.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        names = {one.value: one.name for one in signal.Signals}
        return names.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"


# --------------------------------------------------------------------------- in the worker process


def main() -> None:
    """Answer requests until the parent closes the pipe or is gone."""
    replies, pipe = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    # What the function prints must not get between the answers, nor a program that it starts take
    # the requests.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=read_requests, args=(pipe, requests), daemon=True).start()
    encoded, rank = requests.get()
    function: Any = None
    while True:
        try:
            if function is None:
                function, result = pickle.loads(encoded), None
            else:
                result = function(requests.get(), rank)
            reply = cloudpickle.dumps((True, result))
        except (Exception, SystemExit) as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            reply = encode_error(error)
        replies.write(reply)
        replies.flush()


def read_requests(pipe: Any, requests: Any) -> None:
    """Put requests into a queue as they come; their end ends this process, busy or not."""
    try:
        while True:
            requests.put(pickle.load(pipe))
    finally:
        os._exit(1)


def encode_error(error: BaseException) -> bytes:
    """Return the error as an answer, or a description of one that cannot be sent."""
    try:
        reply = cloudpickle.dumps((False, error))
        pickle.loads(reply)
    except Exception:
        described = MiniftError(f"{type(error).__name__}: {error}")
        described.add_note("\n".join(error.__notes__))
        return cloudpickle.dumps((False, described))
    return reply
