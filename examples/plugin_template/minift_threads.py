"""A plugin for minift: a device, and an observer that says what became of it.

`--device threads:2` computes on the host with two threads, so that others have the rest of the
machine; `--device threads` takes one. At the end of a run a line says how many cores were busy.
"""

import time

from minift import Device, MiniftError, hookimpl


class ThreadsDevice(Device):
    """The host's processors, as many of them as were asked for."""

    name = "threads"
    priority = -1  # never taken by "auto": somebody has to ask for it

    def __init__(self, spec: str = "") -> None:
        super().__init__(spec)
        number = self.spec.partition(":")[2] or "1"
        if not number.isdecimal() or int(number) < 1:
            raise MiniftError(
                "the device threads needs a number of threads",
                got=self.spec,
                expected="threads:1, threads:2, ...",
            )
        self.threads = int(number)

    @property
    def description(self) -> str:
        return f"threads:{self.threads}"

    def prepare(self, model):
        import torch  # only now: `minift plugins` imports this module too

        torch.set_num_threads(self.threads)
        return super().prepare(model)


class Threads:
    """The plugin: the device, and how many cores a run kept busy."""

    @hookimpl
    def minift_register_devices(self):
        return {"threads": ThreadsDevice}

    @hookimpl
    def minift_on_train_begin(self, run):
        self.started, self.busy = time.perf_counter(), time.process_time()

    @hookimpl
    def minift_on_train_end(self, run):
        seconds = time.perf_counter() - self.started
        cores = (time.process_time() - self.busy) / seconds
        run.log_message(f"{run.device.description}: {cores:.1f} cores busy for {seconds:.1f} s")


plugin = Threads()
