"""NVIDIA GPUs. Run on one, an H200; never on several, nor over nccl.

What an accelerator needs in general is in minift_generic. Here is what CUDA has beside it:

- memory that the GPU fetches by itself (pinned), so that sending a batch waits for nothing;
- tensor cores: bf16, fp16, and tf32, which multiplies fp32 numbers with ten bits of mantissa;
- several GPUs in a machine, each of which wants a process of its own.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from minift_generic import AcceleratorDevice

from minift import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

MULTIPLE = 8  # the sizes of matrices that tensor cores take without padding them by themselves


class CudaDevice(AcceleratorDevice):
    name, priority = "cuda", 20
    library: ClassVar[str | None] = "torch_cuda"
    files: ClassVar[tuple[str, ...]] = (
        "/dev/nvidia[0-9]*",
        "/dev/nvmap",  # Jetson
        "/dev/dxg",  # WSL
        r"C:\Windows\System32\nvcuda.dll",
    )

    def __init__(self, spec: str = "") -> None:
        super().__init__(spec)
        self.precision = "fp32"  # of the training steps, as `setup_precision` says
        self.pad_id: int | None = None  # of the model, as `prepare` sees
        self.longest = 0

    @classmethod
    def _missing(cls) -> str | None:
        if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            return "CUDA_VISIBLE_DEVICES hides all GPUs"
        return super()._missing()

    def precisions(self) -> dict[str, str | None]:
        """tf32 is chosen by name only: it is faster than fp32, and less exact."""
        major, minor = self.module.get_device_capability(self.index)
        if major >= 8:  # Ampere
            return {"fp32": None, "bf16": None, "fp16": None, "tf32": None}
        slow = f"compute capability {major}.{minor} is below 8.0, the first to compute bf16"
        return {"fp32": None, "bf16": slow, "fp16": None}

    def prepare(self, model: "nn.Module") -> "nn.Module":
        config = getattr(model, "config", None)
        self.pad_id = getattr(config, "pad_token_id", None)
        self.longest = getattr(config, "max_seq_length", 0)
        if self.world_size == 1 and self.module.device_count() > 1:
            say_how_to_use_all(self.module.device_count())
        return super().prepare(model)

    def on_host(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Round T up where padding is computed with, and pin what is sent."""
        from minift.collate import pad_to_shape

        padded = {"input_ids", "attention_mask"} <= batch.keys() and "unpadding" not in batch
        if padded and self.pad_id is not None:
            rows, length = batch["input_ids"].shape
            rounded = -(-length // MULTIPLE) * MULTIPLE
            if rounded <= self.longest:
                batch = pad_to_shape(batch, rows, rounded, self.pad_id)
        return {name: pinned(value) for name, value in batch.items()}

    def setup_precision(self, precision: str) -> None:
        super().setup_precision(precision)
        self.precision = precision

    @contextlib.contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        name = "fp32" if precision == "tf32" else precision
        with products(precision), super().autocast(name):
            yield

    def backward(self, loss_sum: "Tensor", last: bool = True) -> None:
        with products(self.precision):
            super().backward(loss_sum, last)


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """Products of fp32 matrices in tf32 or exactly, whatever torch was told before and after."""
    import torch

    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def pinned(value: Any) -> Any:
    """Its tensors, in lists and dataclasses too, in memory that the GPU can fetch by itself."""
    if hasattr(value, "pin_memory"):
        return value.pin_memory()
    if isinstance(value, list):
        return [pinned(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{k: pinned(part) for k, part in vars(value).items()})
    return value


@functools.cache
def say_how_to_use_all(count: int) -> None:
    """Once a process; torch's DataParallel, which would take them all, changes the batch size."""
    print(
        f"{count} GPUs here and one is used. For all: "
        f"torchrun --nproc-per-node {count} -m minift train ...",
        file=sys.stderr,
    )


@hookimpl
def minift_register_devices():
    return {"cuda": CudaDevice}
