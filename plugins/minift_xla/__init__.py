"""TPUs, and XLA's emulation of one on the processor, through torch_xla.

XLA is lazy: operations are collected in a graph until a value is needed, then the graph is compiled
for exactly these shapes, and run. Compiling takes seconds to minutes, so all steps of a run should
have the same graph (https://docs.pytorch.org/xla, "Recompilation"):

- batches have few shapes: their length is a power of two, and short batches are extended by rows of
  weight 0;
- each step ends with one `sync`, where its graph ends;
- no number is read from the device between log points.

With several devices (the cores of a TPU, or CPU_NUM_DEVICES virtual ones) one program runs on all
of them: the rows of each batch are divided among them, and the compiler inserts the communication
(GSPMD, Xu et al. 2021, arXiv 2105.04663). For the loop it is one device with one large batch.

torch_xla 2.9 is its last release and fits torch 2.9 alone. For a TPU and a newer torch there is
torch_tpu, whose device is called `tpu` (plugins/minift_generic).
"""

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from minift_generic import keep_parameters, pad_to_shape

from minift import Device, hookimpl
from minift.errors import DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHORTEST = 32  # the smallest length; each larger one is twice the one before
MAX_SHAPES = 16  # of batches, in one run


class XlaDevice(Device):
    name = "xla"
    priority = -1  # only when asked for: without a TPU it is an emulation

    def __init__(self, spec: str = "") -> None:
        super().__init__(spec)
        if self.world_size > 1:
            what, got = "xla computes on all of its devices from one process", self.world_size
            do = "start it without torchrun or notebook_launcher"
            raise DeviceError(what, got=f"{got} processes", do=do)
        import numpy as np
        import torch_xla.runtime as xr

        self.type = xr.device_type()
        self.mesh: Any = None
        devices = xr.global_runtime_device_count()
        if devices > 1:
            import torch_xla.distributed.spmd as xs

            xr.use_spmd()
            self.mesh = xs.Mesh(np.arange(devices), (devices,), ("data",))
        self.devices = devices
        check_backward(self.torch_device)
        self.pad_id, self.max_seq_length = 0, sys.maxsize  # of the model, set by `prepare`
        self.shapes: set[tuple[Any, ...]] = set()

    @classmethod
    def unavailable(cls) -> str | None:
        if importlib.util.find_spec("torch_xla") is None:
            return "torch_xla is not installed (pip install 'minift[xla]', with torch 2.9)"
        return None

    @property
    def description(self) -> str:
        what = "CPU emulation" if self.type == "CPU" else self.type
        return f"xla ({what})" if self.devices == 1 else f"xla ({what}, {self.devices} devices)"

    @property
    def torch_device(self) -> "torch.device":
        import torch_xla

        return torch_xla.device()

    def precisions(self) -> dict[str, str | None]:
        emulated = "the emulation computes bf16 no faster" if self.type == "CPU" else None
        return {"fp32": None, "bf16": emulated}

    # -- randomness -------------------------------------------------------------------------------

    def seed(self, seed: int) -> None:
        import torch_xla

        super().seed(seed)
        torch_xla.manual_seed(seed)  # torch.manual_seed does not reach it

    def rng_state(self) -> "Tensor":
        import torch
        import torch_xla.core.xla_model as xm

        return torch.tensor(list(xm.get_rng_state().to_bytes(8, "little")), dtype=torch.uint8)

    def set_rng_state(self, state: "Tensor") -> None:
        import torch_xla.core.xla_model as xm

        xm.set_rng_state(int.from_bytes(bytes(state.tolist()), "little"))

    # -- one step ---------------------------------------------------------------------------------

    def prepare(self, model: "torch.nn.Module") -> "torch.nn.Module":
        config = getattr(model, "config", None)
        self.pad_id = max(getattr(config, "pad_token_id", None) or 0, 0)
        self.max_seq_length = getattr(config, "max_seq_length", sys.maxsize)
        with keep_parameters(self.torch_device):
            return super().prepare(model)

    def batches(
        self, loader: Iterable[dict[str, Any]], batch_size: int = 0
    ) -> Iterator[dict[str, Any]]:
        for batch in super().batches(self.extended(batch, batch_size) for batch in loader):
            if self.mesh is not None:
                self.shard(batch)
            yield batch

    def extended(self, batch: dict[str, Any], batch_size: int) -> dict[str, Any]:
        """Extend a batch, in host memory, to one of few shapes."""
        import torch

        batch = {name: value for name, value in batch.items() if name != "unpadding"}
        tensors = {n: x for n, x in batch.items() if isinstance(x, torch.Tensor) and x.dim()}
        if not tensors:
            return batch
        B = len(next(iter(tensors.values())))
        T = batch["input_ids"].shape[1] if "input_ids" in batch else 0
        size = max(B, -(-batch_size // self.devices) * self.devices)  # as many for each device
        batch = pad_to_shape(batch, size, self.length(T), self.pad_id)
        if batch_size:
            batch["example_mask"] = (torch.arange(size) < B).float()
        self.note_shape({name: tuple(batch[name].shape) for name in tensors})
        return batch

    def length(self, T: int) -> int:
        """Return the smallest of few lengths that T tokens fit into."""
        length = SHORTEST
        while length < T:
            length *= 2
        return max(T, min(length, self.max_seq_length))

    def note_shape(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Refuse to go on if there are many shapes: each is compiled, and the run would crawl."""
        self.shapes.add(tuple(sorted(shapes.items())))
        if len(self.shapes) > MAX_SHAPES:
            what = f"the batches have more than {MAX_SHAPES} shapes, and each of them is compiled"
            got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            expected = "few shapes: lengths that are powers of two, and full batches"
            do = "have the collator pad to one size (padding='max_length', max_length=128), and "
            do += "give other tensors the same size in every batch"
            raise DeviceError(what, got=f"a new one: {got}", expected=expected, do=do)

    def shard(self, batch: dict[str, Any]) -> None:
        """Divide the rows among the devices, if that is even; else each gets all rows."""
        import torch_xla.distributed.spmd as xs

        for value in batch.values():
            if getattr(value, "ndim", 0) and len(value) % self.devices == 0:
                xs.mark_sharding(value, self.mesh, ("data", *[None] * (value.ndim - 1)))

    def step(self, optimizer: "torch.optim.Optimizer", skip: "Tensor | None" = None) -> bool:
        stepped = super().step(optimizer, skip)
        self.sync()
        return stepped

    # -- leaving the device -----------------------------------------------------------------------

    def sync(self) -> None:
        import torch_xla

        torch_xla.sync()

    def fetch(self, scalars: "dict[str, Tensor]") -> dict[str, float]:
        """One transfer of all, without a graph that would stack them first."""
        import torch_xla

        values = torch_xla._XLAC._xla_get_cpu_tensors([x.detach() for x in scalars.values()])
        return {name: float(value) for name, value in zip(scalars, values, strict=True)}

    def to_host(self, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        self.sync()  # else a graph would be compiled for each tensor
        return super().to_host(state)

    def counters(self) -> dict[str, int]:
        import torch_xla.debug.metrics as met

        transfers = met.metric_data("TransferFromDeviceTime")
        return {
            "compilations": met.counter_value("UncachedCompile") or 0,
            "transfers_to_host": transfers[0] if transfers else 0,
        }


def check_backward(device: "torch.device") -> None:
    """Refuse a process whose gradients torch cannot compute.

    The first backward pass of a process fixes which devices have one, and `import torch_xla` makes
    the device known.
    """
    import torch

    try:
        torch.ones((), requires_grad=True, device=device).square().backward()
    except RuntimeError as error:
        what, got = "torch computes no gradients on xla in this process", str(error).splitlines()[0]
        expected = "xla chosen, or torch_xla imported, before the first backward pass"
        do = "make the Accelerator or the Trainer with device='xla' earlier, or import torch_xla "
        do += "at the top of the script"
        raise DeviceError(what, got=got[:200], expected=expected, do=do) from error


@hookimpl
def minift_register_devices():
    return {"xla": XlaDevice}
