"""The host's processors.

`Device` itself is plain eager PyTorch in host memory. This plugin adds what makes it faster there:

- it says whether the processor multiplies bf16 numbers natively;
- processes on one machine exchange gradients through shared memory (`shared.py`);
- malloc keeps freed memory: a training step frees and allocates the same large blocks again and
  again, and getting each from the kernel, page by page, costs 5 to 9 % of a step;
- torch has two libraries for products of fp32 matrices, and on some processors the other one,
  oneDNN, is faster than its default;
- oneDNN, which multiplies 16-bit numbers, compiles a kernel for each number of rows: batches have
  few sizes;
- dropout draws few random numbers (`dropout.py`).
"""

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minift import Device, hookimpl
from minift_cpu import shared

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of glibc's mallopt(3): up to which size, and how much, freed memory is kept.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, GIGABYTE = -1, -3, 2**30


class CpuDevice(Device):
    name = "cpu"
    board: shared.Board | None = None

    def precisions(self) -> dict[str, str | None]:
        slow = None if bf16_instructions() else "this processor has no bf16 instructions"
        return {"fp32": None, "bf16": slow, "fp16": "processors compute fp16 in fp32's steps"}

    def prepare(self, model: "nn.Module") -> "nn.Module":
        keep_freed_memory()
        ready = super().prepare(model)
        size = shared.exchange_size(model)
        if shared.is_possible() and (self.board is None or self.board.size < size):
            self.board = shared.Board(size)
        return ready

    def unpadded_size(self, num_tokens: int, precision: str) -> int:
        """In 16 bits, round up to one of 16 sizes between two powers of two.

        Each further number of tokens would cost some 50 ms, in which oneDNN compiles a kernel for
        it: a sixth of MiniLM's training step.
        """
        if precision == "fp32":
            return num_tokens
        multiple = max(1, 2 ** (num_tokens.bit_length() - 5))
        return -(-num_tokens // multiple) * multiple

    @contextlib.contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        from minift.models.attention import dropout_by
        from minift_cpu.dropout import dropout

        products = super().autocast(precision)
        if precision == "fp32" and onednn_multiplies_fp32():
            products = onednn_products()
        with products, dropout_by(dropout):
            yield

    def backward(self, loss_sum: "Tensor", last: bool = True) -> None:
        with onednn_products() if onednn_multiplies_fp32() else contextlib.nullcontext():
            super().backward(loss_sum, last)

    def all_reduce_flat(self, tensors: "list[Tensor]") -> "Tensor":
        if self.board is None or not self.board.fits(tensors):
            return super().all_reduce_flat(tensors)
        return self.board.all_reduce_flat(tensors)


def processor() -> set[str]:
    """Return the words in /proc/cpuinfo; torch knows them too, but would have to be imported.

    Without Linux there are none, and all that follows keeps to torch's defaults.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()


def bf16_instructions() -> set[str]:
    """Return the processor's features that multiply bf16 (x86: AVX-512, AMX; Arm: BF16)."""
    return processor() & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}


def keep_freed_memory() -> None:
    """Let malloc keep freed blocks, of up to a gigabyte each, for the next step."""
    with contextlib.suppress(OSError, AttributeError):  # the C library is another than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, GIGABYTE)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * GIGABYTE - 1)


@contextlib.contextmanager
def onednn_products() -> Iterator[None]:
    """Compute products of fp32 matrices with oneDNN within the block.

    The setting allows bf16 for them. oneDNN uses that on processors with AMX only; elsewhere it
    computes in true fp32. Use it only if `onednn_multiplies_fp32()`.
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
def onednn_multiplies_fp32() -> bool:
    """True on processors with AVX-512 and without AMX, where oneDNN is the faster library.

    With AMX the setting would lower the precision, and without AVX-512 the two are equally fast.
    The processor's features decide and no measurement: the libraries differ in the last digit, so a
    choice that noise can turn would make two processes, or a run and its resumption, differ.
    """
    features = processor()
    return "avx512f" in features and not any(word.startswith("amx") for word in features)


@hookimpl
def minift_register_devices():
    return {"cpu": CpuDevice}
