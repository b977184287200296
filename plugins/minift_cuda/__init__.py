"""NVIDIA GPUs. Run on one, an H200; never on several, nor over nccl.

minift_generic has what all accelerators need. This plugin adds what CUDA has beside it:

- pinned host memory, from which batches are transferred without waiting;
- tensor cores: bf16, fp16, and tf32, which multiplies fp32 numbers with ten bits of mantissa;
- several GPUs in a machine, each of which needs a process of its own.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from minift_generic import AcceleratorDevice, pad_to_shape

from minift import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

MULTIPLE = 8  # of the sizes of matrices that tensor cores multiply without padding them first


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
        self.precision = "fp32"  # of the training steps, set by `setup_precision`
        self.pad_id: int | None = None  # of the model, set by `prepare`, as is max_seq_length
        self.max_seq_length = 0

    @classmethod
    def missing_requirement(cls) -> str | None:
        if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            return "CUDA_VISIBLE_DEVICES hides all GPUs"
        return super().missing_requirement()

    def precisions(self) -> dict[str, str | None]:
        """All from Ampere on; "auto" never takes tf32, which is faster and less exact than fp32."""
        major, minor = self.module.get_device_capability(self.index)
        if major >= 8:  # Ampere
            return {"fp32": None, "bf16": None, "fp16": None, "tf32": None}
        slow = f"compute capability {major}.{minor} is below 8.0, the first to compute bf16"
        return {"fp32": None, "bf16": slow, "fp16": None}

    def prepare(self, model: "nn.Module") -> "nn.Module":
        config = getattr(model, "config", None)
        self.pad_id = getattr(config, "pad_token_id", None)
        self.max_seq_length = getattr(config, "max_seq_length", 0)
        if self.world_size == 1 and self.module.device_count() > 1:
            print_how_to_use_all(self.module.device_count())
        return super().prepare(model)

    def prepare_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Round T up if the model computes padding, and pin all tensors."""
        padded = {"input_ids", "attention_mask"} <= batch.keys() and "unpadding" not in batch
        if padded and self.pad_id is not None:
            B, T = batch["input_ids"].shape
            rounded = -(-T // MULTIPLE) * MULTIPLE
            if rounded <= self.max_seq_length:
                batch = pad_to_shape(batch, B, rounded, max(self.pad_id, 0))
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
    """Compute products of fp32 matrices in tf32, or else exactly, within the block."""
    import torch

    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def pinned(value: Any) -> Any:
    """Copy tensors, also in lists and dataclasses, to pinned memory."""
    if hasattr(value, "pin_memory"):
        return value.pin_memory()
    if isinstance(value, list):
        return [pinned(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{k: pinned(part) for k, part in vars(value).items()})
    return value


@functools.cache
def print_how_to_use_all(count: int) -> None:
    """Print it, once a process. DataParallel would use all, but change the batch size."""
    print(
        f"{count} GPUs here and one is used. For all: "
        f"torchrun --nproc-per-node {count} -m minift train ...",
        file=sys.stderr,
    )


@hookimpl
def minift_register_devices():
    return {"cuda": CudaDevice}
