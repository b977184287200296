"""Accelerators through the interface that torch gives to all of them. UNTESTED ON THEIR HARDWARE.

`torch.xpu`, `torch.mps` and what a backend from outside torch registers (`torch.tpu` of torch_tpu)
have the same functions under the same names. So `AcceleratorDevice` is one class, a type of device
is data, and a new one is a subclass of a few lines. It has been run on an accelerator that is
emulated on the processor, tensors and all, and on an NVIDIA GPU, which has a plugin of its own;
never on a TPU, an Intel GPU or an Apple GPU. That is why "auto" does not choose these: they have to
be named.

Accelerators work asynchronously: what is called returns before it is computed. Nothing here waits
for them but `sync`, which does nothing else.
"""

import glob
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from minift import Device, distributed, hookimpl
from minift.errors import DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class AcceleratorDevice(Device):
    """A device whose `name` is torch's for its type.

    Attributes:
        priority: "auto" takes the cpu (0) before it.
        package: without which there is no such type.
        library: in torch's own folder, without which there is no such type.
        files: patterns of paths, one of which exists where there is such a device.
        machine: the operating system and processor that it comes with.
        figures: {name here: the function that says so many bytes}.
    """

    priority = -1
    package: ClassVar[str | None] = None
    library: ClassVar[str | None] = None
    files: ClassVar[tuple[str, ...]] = ()
    machine: ClassVar[tuple[str, str] | None] = None
    figures: ClassVar[dict[str, str]] = {
        "allocated": "memory_allocated",
        "peak": "max_memory_allocated",
        "reserved": "memory_reserved",
    }

    def __init__(self, spec: str = "") -> None:
        super().__init__(spec)
        import torch

        reason = self.unavailable()  # now by torch itself
        if reason is not None:
            raise DeviceError(f"{self.name} cannot be used here", got=reason)
        self.module = torch.get_device_module(self.name)
        self.index = self._index(self.module.device_count())
        if hasattr(self.module, "set_device"):  # else there is only one
            self.module.set_device(self.index)

    def _index(self, count: int) -> int:
        """Which of the devices of this machine: as the user says, else the process's own."""
        said = self.spec.partition(":")[2]
        if said and self.world_size > 1:
            raise DeviceError(
                "each of several processes takes a device of its own",
                got=self.spec,
                do=f"pass device={self.name!r}",
            )
        index = int(said) if said.isdigit() else distributed.local_rank()
        if index >= count or (said and not said.isdigit()):
            more = "" if self.world_size == 1 else ", as many processes as the machine has of them"
            raise DeviceError(
                f"there is no {self.name}:{said or index}",
                got=f"{count} of them",
                expected=", ".join(f"{self.name}:{i}" for i in range(count)) + more,
            )
        return index

    @classmethod
    def unavailable(cls) -> str | None:
        """From what lies on the disk; from torch, if that has been imported anyway."""
        torch = sys.modules.get("torch")
        if torch is not None and has_module(torch, cls.name):
            if torch.get_device_module(cls.name).is_available():
                return None
            return cls._missing() or f"torch {torch.__version__} finds no {cls.name} that works"
        unknown = None if torch is None else f"torch {torch.__version__} knows no {cls.name}"
        return cls._missing() or unknown

    @classmethod
    def _missing(cls) -> str | None:
        """What is not there, as far as can be seen without importing torch."""
        if cls.machine not in (None, (sys.platform, platform.machine())):
            return f"this is no machine with {cls.name} ({' '.join(cls.machine or ())})"
        if cls.package is not None and importlib.util.find_spec(cls.package) is None:
            return f"the package {cls.package} is not installed"
        if cls.library is not None and not list(torch_folder().glob(f"lib/*{cls.library}.*")):
            return f"torch {importlib.metadata.version('torch')} was built without {cls.name}"
        if cls.files and not any(map(glob.glob, cls.files)):
            return f"this machine shows none ({', '.join(cls.files)})"
        return None

    @property
    def description(self) -> str:
        named = getattr(self.module, "get_device_name", None)
        return self.name if named is None else f"{self.name} ({named(self.index)})"

    @property
    def torch_device(self) -> "torch.device":
        import torch

        return torch.device(self.name, self.index)

    def precisions(self) -> dict[str, str | None]:
        """fp16 is not offered: its loss scale has been tried on none of these devices."""
        asked = getattr(self.module, "is_bf16_supported", None)
        slow: str | None = f"torch.{self.name} does not say whether bf16 is native"
        if asked is not None:
            native = asked(including_emulation=False)
            slow = None if native else f"{self.description} does not compute bf16 natively"
        return {"fp32": None, "bf16": slow}

    # Dropout draws from the device's generator; a module that draws on the host draws from
    # torch's. Both are seeded, so that all that is drawn in a step repeats with it.

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self.module.manual_seed(seed)

    def rng_state(self) -> "Tensor":
        import torch

        return torch.cat([super().rng_state(), self.module.get_rng_state(self.torch_device)])

    def set_rng_state(self, state: "Tensor") -> None:
        size = len(super().rng_state())
        super().set_rng_state(state[:size].clone())
        self.module.set_rng_state(state[size:].clone(), self.torch_device)

    def batches(self, loader: Iterable[dict[str, Any]], rows: int = 0) -> Iterator[dict[str, Any]]:
        """One batch ahead: the next one is on its way before this one is computed with."""
        ahead: dict[str, Any] | None = None
        for batch in super().batches(map(self.on_host, loader), rows):
            if ahead is not None:
                yield ahead
            ahead = batch
        if ahead is not None:
            yield ahead

    def on_host(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What is done to a batch before it is sent."""
        return batch

    def sync(self) -> None:
        self.module.synchronize()

    def memory(self) -> dict[str, int]:
        asked = {name: getattr(self.module, call, None) for name, call in self.figures.items()}
        return {name: call() for name, call in asked.items() if call is not None}


def has_module(torch: Any, name: str) -> bool:
    """Whether torch knows a type of device by this name, and the functions for it."""
    try:
        return hasattr(torch.get_device_module(name), "is_available")
    except RuntimeError:
        return False


def torch_folder() -> Path:
    """Where torch is installed, found without importing it."""
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


class Tpu(AcceleratorDevice):
    """A TPU through torch_tpu, torch's own backend; for torch_xla there is minift_xla."""

    name = "tpu"
    package: ClassVar[str | None] = "torch_tpu"
    files: ClassVar[tuple[str, ...]] = ("/dev/accel*", "/dev/vfio/[0-9]*")


class Xpu(AcceleratorDevice):
    """An Intel GPU."""

    name = "xpu"
    library: ClassVar[str | None] = "torch_xpu"
    files: ClassVar[tuple[str, ...]] = ("/dev/dri/renderD*", "/dev/dxg")


class Mps(AcceleratorDevice):
    """The GPU of an Apple processor; there is one, and it has no memory of its own."""

    name = "mps"
    machine = ("darwin", "arm64")
    figures = {"allocated": "current_allocated_memory", "reserved": "driver_allocated_memory"}


@hookimpl
def minift_register_devices():
    return {device.name: device for device in (Tpu, Xpu, Mps)}
