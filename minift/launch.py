"""Several processes from one call, for notebooks; elsewhere torchrun starts them.

    notebook_launcher(training_function, args=(), num_processes=2)

Each is a fresh Python that is told who it is in the way torchrun does it (see distributed.py). What
the function refers to in the notebook travels by value, so that it need not stand in a module.
"""

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from minift.data.worker import ENVIRONMENT, Died, Worker, sendable
from minift.device import Device
from minift.errors import ArgumentError, DeviceError, TrainingError


def notebook_launcher(
    function: Callable[..., Any], args: Sequence[Any] = (), num_processes: int = 1
) -> None:
    """Run `function(*args)` in several processes that train together, to the end of all of them.

    The Trainer or Accelerator must be made inside the function. What it prints goes to stderr.

    Args:
        function: what each process does.
        args: for it.
        num_processes: 1 calls the function here.

    Raises:
        DeviceError: this process has used an accelerator, which the new ones may need.
        TrainingError: a process died. An error in the function is raised as it is.
    """
    if num_processes < 1:
        raise ArgumentError("num_processes must be at least 1", got=num_processes)
    if num_processes == 1:
        function(*args)
        return
    if Device.initialized:
        raise DeviceError(
            f"this process has used {Device.initialized} already, which others cannot take over",
            do="restart the notebook, and make the Trainer or Accelerator in the function alone",
        )

    def call(task: None, rank: int) -> None:
        function(*args)

    job = sendable(call)
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **sizes}
    places = [{"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(num_processes)]
    workers = [Worker({**ENVIRONMENT, **meeting, **place}) for place in places]
    with ThreadPoolExecutor(num_processes) as threads:
        running = [threads.submit(attend, worker, i, job) for i, worker in enumerate(workers)]
        try:
            for one in as_completed(running):
                one.result()
        finally:
            for worker in workers:
                worker.end()


def attend(worker: Worker, rank: int, job: bytes) -> None:
    """Have a process do its work; its error is raised here."""
    try:
        worker.ask((rank, job))
        worker.ask(None)
    except Died:
        cause = worker.end(patience=5)
        raise TrainingError(f"process {rank} died, and the others were ended", got=cause) from None


def free_port() -> str:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
