"""The host's processors.

`Device` itself is plain eager PyTorch in host memory, so all that this plugin knows is the machine:

- whether the processor multiplies bf16 numbers natively;
- that processes on it see the same memory (`shared.py`);
- that memory is better kept once it was had: a training step frees and takes the same large blocks
  again and again, and getting each anew from the kernel, page by page, costs 5 to 9 % of a step;
- that torch has two libraries for products of fp32 matrices, and by default takes the one that is
  half as fast on some processors.
"""

import contextlib
import ctypes
import functools
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from minift import Device, hookimpl
from minift_cpu import shared

if TYPE_CHECKING:
    from torch import Tensor, nn

# glibc's mallopt(3): below which size freed memory is kept, and how much of it.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, GIGABYTE = -1, -3, 2**30

# oneDNN must be this much faster to be chosen: where it is at all, it is twice as fast, and a
# choice that noise could turn would change the last digits from run to run.
FASTER, ERROR = 1.3, 1e-6


class CpuDevice(Device):
    name = "cpu"
    board: shared.Board | None = None

    def precisions(self) -> dict[str, str | None]:
        slow = None if bf16_instructions() else "this processor has no bf16 instructions"
        return {"fp32": None, "bf16": slow, "fp16": "processors compute fp16 in fp32's steps"}

    def prepare(self, model: "nn.Module") -> "nn.Module":
        keep_freed_memory()
        ready = super().prepare(model)
        size = shared.numbers_of(model)
        if shared.is_possible() and (self.board is None or self.board.size < size):
            self.board = shared.Board(size)
        return ready

    def autocast(self, precision: str) -> AbstractContextManager:
        if precision == "fp32" and onednn_is_better():
            return onednn_products()
        return super().autocast(precision)

    def backward(self, loss_sum: "Tensor", last: bool = True) -> None:
        with onednn_products() if onednn_is_better() else contextlib.nullcontext():
            super().backward(loss_sum, last)

    def all_reduce_flat(self, parts: "list[Tensor]") -> "Tensor":
        if self.board is None or not self.board.takes(parts):
            return super().all_reduce_flat(parts)
        return self.board.all_reduce_flat(parts)


def processor() -> set[str]:
    """The words in /proc/cpuinfo, read rather than asked of torch, which would be imported.

    Elsewhere than on Linux there are none, and all that follows keeps to torch's defaults.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()


def bf16_instructions() -> set[str]:
    """Those of the processor's features that multiply bf16 (x86: AVX-512, AMX; Arm: BF16)."""
    return processor() & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, up to a gigabyte a block, for the next step to take."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc: then it stays as it is
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, GIGABYTE)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * GIGABYTE - 1)


@contextlib.contextmanager
def onednn_products() -> Iterator[None]:
    """Products of fp32 matrices through oneDNN; the setting is put back afterwards.

    The switch says that bf16 would do. oneDNN follows it on processors with AMX alone; elsewhere
    it computes in true fp32. `onednn_is_better` must have been asked.
    """
    import torch

    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@functools.cache
def onednn_is_better() -> bool:
    """Whether oneDNN multiplies fp32 matrices faster here, and as exactly; said when it is chosen.

    Asked on processors with AVX-512 and without AMX alone: with AMX the switch would lower the
    precision, and without AVX-512 the two libraries are equally fast.
    """
    if "avx512f" not in processor() or any(word.startswith("amx") for word in processor()):
        return False
    faster, error = compare_products()
    if faster < FASTER or error > ERROR:
        return False
    print(
        f"cpu: fp32 products through oneDNN, {faster:.1f} times as fast as torch's default here "
        f"(relative error {error:.1e})",
        file=sys.stderr,
    )
    return True


def compare_products() -> tuple[float, float]:
    """How many times as fast oneDNN is on a product of usual size, and its relative error."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 384, generator=generator)
    weight = torch.randn(1536, 384, generator=generator)

    def seconds() -> float:
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        return time.perf_counter() - started

    ratios = []
    for _ in range(9):
        usual = seconds()
        with onednn_products():
            ratios.append(usual / seconds())
    with onednn_products():
        got = torch.nn.functional.linear(x, weight)
    want = torch.nn.functional.linear(x.double(), weight.double())
    return statistics.median(ratios), float((got - want).norm() / want.norm())


@hookimpl
def minift_register_devices():
    return {"cpu": CpuDevice}
