"""Accelerators through the interface that torch gives to all of them. UNTESTED ON THEIR HARDWARE.

`torch.xpu`, `torch.mps` and what a backend from outside torch registers (`torch.tpu` of torch_tpu)
have the same functions under the same names. So there is one class, `AcceleratorDevice`, and each
type of device is a subclass with a few lines of data. It has been run on an accelerator that is
emulated on the processor, tensors and all, and on an NVIDIA GPU, which has a plugin of its own;
never on a TPU, an Intel GPU or an Apple GPU. That is why "auto" does not choose these: they must be
named.

Accelerators work asynchronously: a call returns before its result is computed. Only `sync` waits.
"""

import contextlib
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
    from torch import Tensor, nn


class AcceleratorDevice(Device):
    """A device whose `name` is torch's for its type.

    Attributes:
        priority: below that of the cpu (0), which "auto" takes instead.
        package: the Python package that registers the type, if it is not torch's own.
        library: the library in torch's folder that has the type, if not every torch has it.
        files: patterns of paths, one of which exists on machines with such a device.
        machine: the operating system and processor of such machines, if it is only one.
        memory_functions: {key of `memory()`: the function of torch's that returns these bytes}.
    """

    priority = -1
    package: ClassVar[str | None] = None
    library: ClassVar[str | None] = None
    files: ClassVar[tuple[str, ...]] = ()
    machine: ClassVar[tuple[str, str] | None] = None
    memory_functions: ClassVar[dict[str, str]] = {
        "allocated": "memory_allocated",
        "peak": "max_memory_allocated",
        "reserved": "memory_reserved",
    }

    def __init__(self, spec: str = "") -> None:
        super().__init__(spec)
        import torch

        reason = self.unavailable()  # torch has been imported now, and is asked
        if reason is not None:
            raise DeviceError(f"{self.name} cannot be used here", got=reason)
        self.module = torch.get_device_module(self.name)
        self.index = self.choose_index(ask_torch(self.name, "device_count"))
        if hasattr(self.module, "set_device"):  # else there is only one
            ask_torch(self.name, "set_device", self.index)

    def choose_index(self, count: int) -> int:
        """Return the number of the device: the one in `spec`, else that of this process."""
        number = self.spec.partition(":")[2]
        if number and self.world_size > 1:
            what = "each of several processes takes a device of its own"
            raise DeviceError(what, got=self.spec, do=f"pass device={self.name!r}")
        index = int(number) if number.isdigit() else distributed.local_rank()
        if index >= count or (number and not number.isdigit()):
            more = "" if self.world_size == 1 else ", as many processes as the machine has of them"
            what, got = f"there is no {self.name}:{number or index}", f"{count} of them"
            expected = ", ".join(f"{self.name}:{i}" for i in range(count)) + more
            raise DeviceError(what, got=got, expected=expected)
        return index

    @classmethod
    def unavailable(cls) -> str | None:
        """Look for files on the disk; ask torch only if it has been imported anyway."""
        torch = sys.modules.get("torch")
        if torch is None:
            return cls.missing_requirement()
        reason = f"torch {torch.__version__} finds no {cls.name} that works"
        try:
            if ask_torch(cls.name, "is_available"):
                return None
        except (RuntimeError, AttributeError) as error:
            reason += f" ({error})"
        return cls.missing_requirement() or reason

    @classmethod
    def missing_requirement(cls) -> str | None:
        """Return what this machine lacks, as far as can be seen without importing torch."""
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
        get_name = getattr(self.module, "get_device_name", None)
        return self.name if get_name is None else f"{self.name} ({get_name(self.index)})"

    @property
    def torch_device(self) -> "torch.device":
        import torch

        return torch.device(self.name, self.index)

    def precisions(self) -> dict[str, str | None]:
        """fp32 and bf16. fp16 is not offered: its loss scale was never tried on these devices."""
        is_supported = getattr(self.module, "is_bf16_supported", None)
        slow: str | None = f"torch.{self.name} does not say whether bf16 is native"
        if is_supported is not None:
            native = is_supported(including_emulation=False)
            slow = None if native else f"{self.description} does not compute bf16 natively"
        return {"fp32": None, "bf16": slow}

    # Dropout draws from the device's generator, and a module that draws on the host from torch's.
    # Both are seeded and saved, so that all random numbers of a step repeat.

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self.module.manual_seed(seed)

    def rng_state(self) -> "Tensor":
        import torch

        try:
            state = self.module.get_rng_state(self.torch_device)
        except RuntimeError:  # see `ask_torch`; for this one torch has no generic function
            state = self.module.default_generators[self.index].get_state()
        return torch.cat([super().rng_state(), state])

    def set_rng_state(self, state: "Tensor") -> None:
        size = len(super().rng_state())
        super().set_rng_state(state[:size].clone())
        self.module.set_rng_state(state[size:].clone(), self.torch_device)

    def prepare(self, model: "nn.Module") -> "nn.Module":
        with keep_parameters(self.torch_device):
            return super().prepare(model)

    def batches(
        self, loader: Iterable[dict[str, Any]], batch_size: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Prefetch one batch: its transfer begins before the previous one is yielded."""
        previous: dict[str, Any] | None = None
        for batch in super().batches(map(self.prepare_batch, loader), batch_size):
            if previous is not None:
                yield previous
            previous = batch
        if previous is not None:
            yield previous

    def prepare_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Change a batch in host memory, before its transfer; here it stays as it is."""
        return batch

    def sync(self) -> None:
        ask_torch(self.name, "synchronize")

    def memory(self) -> dict[str, int]:
        known = {k: name for k, name in self.memory_functions.items() if hasattr(self.module, name)}
        return {key: getattr(self.module, name)() for key, name in known.items()}


def ask_torch(name: str, function: str, *arguments: Any) -> Any:
    """Call a function that torch has for every type of device.

    The type's own comes first. torch_tpu 0.2 lets only torch call it, and refers all others to
    `torch.accelerator`, which is about one type: that of this machine's accelerator.
    """
    import torch

    try:
        return getattr(torch.get_device_module(name), function)(*arguments)
    except RuntimeError:
        current = torch.accelerator.current_accelerator()
        if current is None or current.type != name:
            raise
        generic = {"set_device": "set_device_index"}.get(function, function)
        return getattr(torch.accelerator, generic)(*arguments)


@contextlib.contextmanager
def keep_parameters(device: "torch.device") -> Iterator[None]:
    """Let `model.to(device)` keep the Parameter objects, which an optimizer may hold already.

    torch moves the content of a Parameter where the new memory is like the old one. Where it is not
    (XLA, and what comes from outside torch), the model would get new Parameters, unless torch is
    told to swap the contents of the two.
    """
    import torch

    probe, future = torch.nn.ParameterList([torch.zeros(1)]), torch.__future__
    parameter, before = probe[0], future.get_swap_module_params_on_conversion()
    swap = probe.to(device)[0] is not parameter
    future.set_swap_module_params_on_conversion(before or swap)
    try:
        yield
    finally:
        future.set_swap_module_params_on_conversion(before)


def pad_to_shape(
    batch: dict[str, Any], batch_size: int, length: int, pad_token_id: int
) -> dict[str, Any]:
    """Pad a collated batch in host memory to B x T, for devices that compile each shape anew.

    Args:
        batch: tensors of shape (B, ...); those that have the shape of `input_ids` are (B, T).
        batch_size: the new B. Added rows repeat the first one; an `example_mask` of 0 must leave
            them out of the loss.
        length: the new T. Added positions hold padding, which `attention_mask` marks with 0.
        pad_token_id: fills `input_ids`; all other columns are filled with 0.
    """
    import torch

    padded = dict(batch)
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor) or not value.dim():
            continue
        per_token = name != "labels" and "input_ids" in batch
        if per_token and value.shape == batch["input_ids"].shape:
            pad_value = pad_token_id if name == "input_ids" else 0
            missing = length - value.shape[1]
            value = torch.nn.functional.pad(value, (0, missing), value=pad_value)
        copies = value[:1].expand(batch_size - len(value), *value.shape[1:])
        padded[name] = torch.cat([value, copies])
    return padded


def torch_folder() -> Path:
    """Find the folder of torch without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


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
    """The GPU of an Apple processor: always one, and it shares the processor's memory."""

    name = "mps"
    machine = ("darwin", "arm64")
    memory_functions = {
        "allocated": "current_allocated_memory",
        "reserved": "driver_allocated_memory",
    }


@hookimpl
def minift_register_devices():
    return {device.name: device for device in (Tpu, Xpu, Mps)}
