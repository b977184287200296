"""An accelerator emulated on the processor, and a plugin for it, for tests of what needs one.

torch reserves a type of device for backends from outside (PrivateUse1). Here it is "emu": its
tensors say that they lie there, host memory cannot read them, and it has a generator of its own.
What is computed with them is computed on the processor; every read of a value is counted. The type
belongs to the whole process, so tests use this in a process of its own.

`emu` is a device as minift_generic has them, `emu-cuda` one as minift_cuda has them.
"""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from minift_cuda import CudaDevice
from minift_generic import AcceleratorDevice

import minift
from minift import hookimpl

FILE = Path(__file__)
READS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero", "aten::equal"}
counts = {"transfers_to_host": 0, "pinned": 0}


class Module:
    """The functions that torch has for every type of device."""

    def __init__(self):
        import torch

        self.state = torch.Generator().manual_seed(0).get_state()

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def _is_in_bad_fork(self):
        return False

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def manual_seed(self, seed):
        import torch

        self.state = torch.Generator().manual_seed(seed).get_state()

    manual_seed_all = manual_seed

    def get_rng_state(self, device):
        return self.state.clone()

    def set_rng_state(self, state, device):
        self.state = state.clone()

    def synchronize(self):
        counts["transfers_to_host"] += 1  # a wait is as bad

    def get_amp_supported_dtype(self):
        import torch

        return [torch.bfloat16, torch.float16]

    def get_device_capability(self, index):
        return 7, 5  # below 8.0: what autocast does in bf16 is not emulated


def install() -> None:
    """Make the type known to torch."""
    import torch
    from torch.utils import _pytree as pytree
    from torch.utils._python_dispatch import return_and_correct_aliasing
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    module = Module()

    class Emulated(torch.Tensor):
        """A tensor on the device; `raw` is what the emulation computes with."""

        raw: torch.Tensor

        @staticmethod
        def __new__(cls, raw):
            layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
            made = torch.Tensor._make_wrapper_subclass(
                cls, raw.size(), dtype=raw.dtype, device="emu:0", **layout
            )
            made.raw = raw
            return made

        def __repr__(self):
            return f"Emulated({self.raw!r})"

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.tolist:  # torch has none for subclasses
                return args[0].cpu().tolist()
            return torch._C._disabled_torch_function_impl(function, types, args, kwargs or {})

        @classmethod
        def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
            return compute(op, args, kwargs or {})

    def inside(value: Any) -> Any:
        if isinstance(value, torch.device) and value.type == "emu":
            return torch.device("cpu")
        return value.raw if isinstance(value, Emulated) else value

    def compute(op, args, kwargs):
        name = op._schema.name
        target = kwargs.get("device")
        leaves = name == "aten::_to_copy" and target is not None and target.type == "cpu"
        written = name == "aten::copy_" and not isinstance(args[0], Emulated)
        counts["transfers_to_host"] += name in READS or leaves or written
        inner = pytree.tree_map(inside, args), pytree.tree_map(inside, kwargs)
        random = torch.Tag.nondeterministic_seeded in op.tags
        if random:
            host, _ = torch.get_rng_state(), torch.set_rng_state(module.state)
        raw = op(*inner[0], **inner[1])
        if random:
            module.state = torch.get_rng_state()
            torch.set_rng_state(host)
        if leaves:
            return raw.clone()
        if written:
            return args[0]
        out = pytree.tree_map(lambda x: Emulated(x) if isinstance(x, torch.Tensor) else x, raw)
        return return_and_correct_aliasing(op, args, kwargs, out)

    def pin_memory(tensor):
        counts["pinned"] += 1
        return tensor

    _setup_privateuseone_for_python_backend("emu", module)
    to_copy = torch.ops.aten._to_copy.default
    every, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(lambda op, *args, **kwargs: compute(op, args, kwargs), "PrivateUse1")
    some.impl("_to_copy", lambda *args, **kwargs: compute(to_copy, args, kwargs), "PrivateUse1")
    # torch's own resizes an empty `out`, which a wrapper cannot be told of
    arange = torch.ops.aten.arange
    for overload in (arange.default, arange.start, arange.start_step):
        implementation = functools.partial(
            lambda op, *args, **kwargs: compute(op, args, kwargs), overload
        )
        some.impl(overload.name(), implementation, "PrivateUse1")
    # Autocast computes products in the lower precision, and all else as it comes.
    casting = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    casting[0].fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def product(op, *args):
        dtype = torch.get_autocast_dtype("emu")
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*(None if x is None else x.to(dtype) for x in args))

    for name in ("linear", "matmul", "mm", "bmm"):
        op = getattr(torch.ops.aten, name).default
        casting[1].impl(name, functools.partial(product, op), "AutocastPrivateUse1")
    libraries.extend([every, some, *casting])
    torch.Tensor.pin_memory = pin_memory  # type: ignore[assignment, method-assign]


libraries: list[Any] = []  # what they register lasts as long as they do


class Installed(AcceleratorDevice):
    name = "emu"
    memory_functions: ClassVar[dict[str, str]] = {}

    def __init__(self, spec=""):
        if not libraries:
            install()
        super().__init__(spec)

    @classmethod
    def missing_requirement(cls):
        return None

    @classmethod
    def unavailable(cls):
        return super().unavailable() if libraries and "torch" in sys.modules else None

    def counters(self):
        return dict(counts)


class InstalledCuda(Installed, CudaDevice):
    name = "emu"


class Fake:
    """What torch.get_device_module gives, as far as a test needs it; nothing is computed."""

    def __init__(self, count=1, capability=(8, 0)):
        self.count, self.capability, self.available, self.chosen = count, capability, True, None
        import torch

        self.state = torch.arange(16, dtype=torch.uint8)
        self.calls = []

    def is_available(self):
        return self.available

    def device_count(self):
        return self.count

    def get_device_capability(self, index):
        return self.capability

    def set_device(self, index):
        self.chosen = index

    def manual_seed(self, seed):
        self.calls.append(("seed", seed))

    def get_rng_state(self, device):
        return self.state.clone()

    def set_rng_state(self, state, device):
        self.state = state

    def synchronize(self):
        self.calls.append("synchronize")

    def memory_allocated(self):
        return 7

    def max_memory_allocated(self):
        return 9


def run_kit(name: str, file: Path = FILE, *more: str) -> "subprocess.CompletedProcess[str]":
    """The conformance kit on a device, in a process of its own."""
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices written in Python; 2.13 has")
    root = Path(minift.__file__).parents[1]
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(root)]
    words += ["--pyargs", "minift.testing", "--device", name, "--minift-plugin", str(file), "-rs"]
    return subprocess.run([*words, *more], capture_output=True, text=True, timeout=300)


@hookimpl
def minift_register_devices():
    return {"emu": Installed, "emu-cuda": InstalledCuda}
