"""Processes that share the work of a map, and what is said to them.

A worker is a fresh Python, started with `subprocess` and told over its pipes what to do. It is no
fork, so threads, open devices and locks of the parent are not in its way; it does not import the
parent's `__main__`, so scripts need no main guard and notebooks work; and it imports torch only if
the function does. cloudpickle carries functions from `__main__` by value, datasets travel as the
names of their files. A worker that dies is seen at once, as the end of its pipe; a parent that
dies is seen in the same way, so that no worker outlives it.

These pipes, between a process and the one that it started, are the only place in minift where a
pickle is read.
"""

import collections
import contextlib
import functools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import pyarrow as pa

from minift.data.storage import file_of, map_file
from minift.errors import MiniftError

START_AFTER = 0.3  # seconds; work that is done by then is not worth a process

# One thread a worker: the workers are the parallelism.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ENVIRONMENT = {**dict.fromkeys(ONE_THREAD, "1"), "TOKENIZERS_PARALLELISM": "false"}


class Died(Exception):
    """The worker's pipe has ended."""


class UnsendableError(MiniftError, TypeError):
    """The work cannot be told to another process."""


class WorkerError(MiniftError, RuntimeError):
    """A worker process died, and so did the one that tried again."""


class Worker:
    """One process and the pipes to it; its environment is this one's, with `changes`."""

    def __init__(self, changes: Mapping[str, str] = ENVIRONMENT) -> None:
        path = [str(folder) for folder in sys.path]
        start = f"import sys; sys.path[:] = {path!r}; import minift.data.worker as w; w.main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **changes},
        )

    def ask(self, request: Any) -> Any:
        """One request and its answer; the exception that the worker met, or `Died`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(pickle.dumps(request))
            self.process.stdin.flush()
            succeeded, answer = pickle.load(self.process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise Died from None
        if not succeeded:
            raise answer
        return answer

    def end(self, patience: float = 0) -> str:
        """Make sure that the process is gone; what ended it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        names = {one.value: one.name for one in signal.Signals}
        return names.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"


def sendable(call: Callable[..., Any]) -> bytes:
    """A function in the form that a worker takes, with all that it refers to in `__main__`."""
    try:
        return cloudpickle.dumps(call)
    except Exception as error:  # whatever some object's own pickling raises
        raise UnsendableError(f"{type(error).__name__}: {error}") from None


class Pool:
    """Workers that take tasks from one queue.

    Args:
        call: `call(task, rank)`, where rank is the worker's number, or None in this process.
        tasks: what there is to do, in any order.
        describe: a task in words, for messages.
    """

    def __init__(
        self, call: Callable[[Any, int | None], Any], tasks: Sequence[Any], describe: Any
    ) -> None:
        self.call, self.describe = call, describe
        self.job = sendable(call)
        self.waiting = collections.deque(tasks)
        self.crashed: set[Any] = set()
        self.workers: list[Worker] = []
        self.ready, self.over = threading.Event(), threading.Event()

    def run(self, num_proc: int, at_once: bool) -> None:
        """Do all tasks, or raise the first error.

        This process works too until a worker is ready to, so that little work is done before a
        worker is even started, and all of it if none can start; unless `at_once`, where each call
        needs a rank.
        """
        with ThreadPoolExecutor(num_proc) as threads:
            serving = [threads.submit(self.serve, rank, at_once) for rank in range(num_proc)]
            try:
                while not at_once and not self.ready.is_set() and (tasks := self.next_task()):
                    self.call(tasks[0], None)
                if not at_once and not self.ready.is_set():
                    self.stop()  # all is done; those that are still starting are not needed
                for one in as_completed(serving):
                    one.result()
                if self.waiting:
                    raise WorkerError("no worker process could start")
            finally:
                self.stop()

    def next_task(self) -> list[Any]:
        """A task, or none if another worker took the last one."""
        try:
            return [self.waiting.popleft()]
        except IndexError:
            return []

    def stop(self) -> None:
        self.over.set()
        for worker in self.workers:
            worker.process.kill()

    def serve(self, rank: int, at_once: bool) -> None:
        """Keep one worker busy, and put another in its place if it dies."""
        if not at_once and self.over.wait(START_AFTER):
            return
        while not self.over.is_set():
            worker = Worker()
            self.workers.append(worker)
            tasks: list[Any] = []
            try:
                worker.ask((rank, self.job))
                self.ready.set()
                while not self.over.is_set() and (tasks := self.next_task()):
                    worker.ask(tasks[0])
                return
            except Died:
                cause = worker.end(patience=5)
                if not tasks and not self.over.is_set():
                    warnings.warn(f"a worker process cannot start ({cause})")
                    return
                if not self.over.is_set():
                    self.mourn(cause, tasks[0])
            finally:
                worker.end()

    def mourn(self, cause: str, task: Any) -> None:
        """A worker died: its task is tried once more, by another one."""
        doing = self.describe(task)
        if cause == "SIGKILL":
            cause += ", which is what happens when memory runs out"
        if task in self.crashed:
            raise WorkerError(
                f"a worker process died while {doing}, and the one that tried again too",
                got=cause,
                do="run without num_proc to see the error, or with fewer processes or smaller "
                "batches; what was done so far is kept",
            )
        warnings.warn(f"a worker process died ({cause}) while {doing}; it is tried once more")
        self.crashed.add(task)
        self.waiting.appendleft(task)


# --------------------------------------------------------------------------- in the worker process


def main() -> None:
    """Answer requests until the parent closes the pipe or is gone."""
    replies, pipe = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    # What the function prints must not get between the answers, nor a program that it starts take
    # the requests.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(pipe, requests), daemon=True).start()
    rank, job = requests.get()
    call: Any = None
    while True:
        try:
            if call is None:
                call, result = pickle.loads(job), None
            else:
                result = call(requests.get(), rank)
            reply = cloudpickle.dumps((True, result))
        except (Exception, SystemExit) as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            reply = portable(error)
        replies.write(reply)
        replies.flush()


def listen(pipe: Any, requests: Any) -> None:
    """Requests as they come; the end of them ends this process, whatever it is doing."""
    try:
        while True:
            requests.put(pickle.load(pipe))
    finally:
        os._exit(1)


def portable(error: BaseException) -> bytes:
    """The error as an answer, or a description of one that cannot be sent."""
    try:
        reply = cloudpickle.dumps((False, error))
        pickle.loads(reply)
    except Exception:
        said = MiniftError(f"{type(error).__name__}: {error}")
        said.add_note("\n".join(error.__notes__))
        return cloudpickle.dumps((False, said))
    return reply


# ----------------------------------------------------------------------------- datasets on the way


def pack(value: Any) -> tuple[bytes, list[Any]]:
    """Arrow tables as bytes, and their buffers: pieces of files by name, others as they are."""
    buffers: list[Any] = []

    def aside(found: Any) -> None:
        buffer = pa.py_buffer(found)
        buffers.append(file_of(buffer) or buffer.to_pybytes())

    return pickle.dumps(value, protocol=5, buffer_callback=aside), buffers


def unpack(data: bytes, buffers: Sequence[Any]) -> Any:
    """What was packed; files are mapped, not read."""
    mapped = functools.cache(lambda path, known: map_file(Path(path), known))
    return pickle.loads(
        data, buffers=[b if isinstance(b, bytes) else mapped(*b[:2]).slice(*b[2:]) for b in buffers]
    )
