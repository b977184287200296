"""Several processes from one call, for notebooks; elsewhere torchrun starts them.

    notebook_launcher(training_function, args=(), num_processes=2)

Each is a fresh Python whose environment says its rank in the way torchrun does it (see
distributed.py). What the function refers to in the notebook travels by value, so that it need not
stand in a module.
"""

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import Any

from minift.device import Device
from minift.errors import ArgumentError, DeviceError, TrainingError
from minift.subprocesses import ONE_THREAD, Worker, WorkerDied, encode_function


def notebook_launcher(
    function: Callable[..., Any], args: Sequence[Any] = (), num_processes: int = 1
) -> None:
    """Run `function(*args)` in several processes that train together, until all of them return.

    The Trainer or Accelerator must be made inside the function. What it prints goes to stderr.

    Args:
        function: runs in each process.
        args: its arguments.
        num_processes: 1 calls the function in this process.

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
        what = f"this process has used {Device.initialized} already, which others cannot take over"
        do = "restart the notebook, and make the Trainer or Accelerator in the function alone"
        raise DeviceError(what, do=do)

    def call(task: None, rank: int) -> None:
        function(*args)

    encoded = encode_function(call)
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
    shared = {**ONE_THREAD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **sizes}
    ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(num_processes)]
    workers = [Worker(encoded, i, {**shared, **rank}) for i, rank in enumerate(ranks)]
    with ThreadPoolExecutor(num_processes) as threads:
        running = [threads.submit(run_rank, worker) for worker in workers]
        try:
            for one in as_completed(running):
                one.result()
        except KeyboardInterrupt:  # each ends its step and saves, as when it is terminated
            for worker in workers:
                worker.process.terminate()
            wait(running)
            raise
        finally:
            for worker in workers:
                worker.end()


def run_rank(worker: Worker) -> None:
    """Have one process call the function, and raise the error of that call here."""
    try:
        worker.load()
        worker.request(None)
    except WorkerDied:
        cause, rank = worker.end(patience=5), worker.rank
        raise TrainingError(f"process {rank} died, and the others were ended", got=cause) from None


def free_port() -> str:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
