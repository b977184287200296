"""Workers that share the tasks of a map, and what happens when one of them dies.

This process works too until a worker is ready, so that little work is done before a worker is even
started. A task whose worker died is given to another one, once: a function that ends its process
would otherwise end one after the other. The error or warning names the task and the signal.

Not loky or concurrent.futures: one dead worker breaks their whole pool, which fails every task
that is waiting or running, and says of none that it was the one.
"""

import collections
import contextlib
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from minift.errors import MiniftError
from minift.subprocesses import Worker, WorkerDied, encode_function

START_AFTER = 0.3  # seconds; work that is done by then is not worth a process


class WorkerError(MiniftError, RuntimeError):
    """A worker process died, and so did the one that tried again."""


class Pool:
    """Workers that take tasks from one queue.

    Args:
        function: `function(task, rank)`, where rank is the worker's number, or None in this
            process.
        tasks: in the order in which they are begun.
        describe: returns a task in words, for messages.
    """

    def __init__(
        self, function: Callable[[Any, int | None], Any], tasks: Sequence[Hashable],
        describe: Callable[[Any], str],
    ) -> None:  # fmt: skip
        self.function, self.describe = function, describe
        self.encoded = encode_function(function)
        self.waiting = collections.deque(tasks)
        self.tried: set[Hashable] = set()  # tasks whose worker died
        self.workers: list[Worker] = []
        self.ready, self.over = threading.Event(), threading.Event()

    def run(self, num_proc: int, needs_rank: bool) -> None:
        """Do all tasks, or raise the first error.

        Args:
            num_proc: the number of workers.
            needs_rank: leave all tasks to workers, as this process has no rank.
        """
        with ThreadPoolExecutor(num_proc) as threads:
            serving = [threads.submit(self.serve, rank, needs_rank) for rank in range(num_proc)]
            try:
                while not needs_rank and not self.ready.is_set() and (tasks := self.next_task()):
                    self.function(tasks[0], None)
                if not needs_rank and not self.ready.is_set():
                    self.stop()  # all is done; workers that are still starting are not needed
                for one in as_completed(serving):
                    one.result()
                if self.waiting:
                    raise WorkerError("no worker process could start")
            finally:
                self.stop()

    def next_task(self) -> list[Any]:
        """Return a list of one task, empty if there is no other: a task may be anything."""
        with contextlib.suppress(IndexError):  # another thread took the last one
            return [self.waiting.popleft()]
        return []

    def stop(self) -> None:
        """End all workers, busy or not."""
        self.over.set()
        for worker in self.workers:
            worker.process.kill()

    def serve(self, rank: int, needs_rank: bool) -> None:
        """Keep one worker busy, and start another in its place if it dies."""
        if not needs_rank and self.over.wait(START_AFTER):
            return
        while not self.over.is_set():
            worker = Worker(self.encoded, rank)
            self.workers.append(worker)
            tasks: list[Any] = []
            try:
                worker.load()
                self.ready.set()
                while not self.over.is_set() and (tasks := self.next_task()):
                    worker.request(tasks[0])
                return
            except WorkerDied:
                cause = worker.end(patience=5)
                if not tasks and not self.over.is_set():
                    warnings.warn(f"a worker process cannot start ({cause})")
                    return
                if not self.over.is_set():
                    self.retry_or_raise(tasks[0], cause)
            finally:
                worker.end()

    def retry_or_raise(self, task: Any, cause: str) -> None:
        """Put back the task of a worker that died, unless another one died of it before."""
        doing = self.describe(task)
        if cause == "SIGKILL":
            cause += ", which is what happens when memory runs out"
        if task in self.tried:
            what = f"a worker process died while {doing}, and the one that tried again too"
            do = "run without num_proc to see the error, or with smaller batches"
            raise WorkerError(what, got=cause, do=do)
        warnings.warn(f"a worker process died ({cause}) while {doing}; it is tried once more")
        self.tried.add(task)
        self.waiting.appendleft(task)
