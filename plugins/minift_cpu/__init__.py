"""The host's processors.

`Device` itself is plain eager PyTorch in host memory. This plugin adds what makes it faster there:

- it says whether the processor multiplies bf16 numbers natively;
- processes exchange only those rows of an embedding's gradient that are not zero (`gradients.py`),
  on one machine through shared memory (`shared.py`);
- malloc keeps freed memory: a training step frees and allocates the same large blocks again and
  again, and getting each from the kernel, page by page, costs 5 to 9 % of a step;
- oneDNN, which multiplies 16-bit numbers, compiles a kernel for each number of tokens, so batches
  are extended to one of a few sizes;
- dropout draws few random numbers (`dropout.py`).
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minift import Device, hookimpl
from minift_cpu import gradients, shared

if TYPE_CHECKING:
    from torch import Tensor, nn

# Parameters of glibc's mallopt(3): how much freed memory, and blocks of which size, malloc keeps.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, GIGABYTE = -1, -3, 2**30


class CpuDevice(Device):
    name = "cpu"
    shared_sum: shared.SharedSum | None = None

    def precisions(self) -> dict[str, str | None]:
        slow = None if bf16_instructions() else "this processor has no bf16 instructions"
        return {"fp32": None, "bf16": slow, "fp16": "processors convert fp16 to fp32 to compute"}

    def prepare(self, model: "nn.Module") -> "nn.Module":
        keep_freed_memory()
        ready = super().prepare(model)
        size = gradients.exchange_size(model)
        if shared.is_possible() and (self.shared_sum is None or self.shared_sum.size < size):
            self.shared_sum = shared.SharedSum(size)
        return ready

    def unpadded_size(self, num_tokens: int, precision: str) -> int:
        """Round up to one of 16 sizes between two powers of two, for bf16 and fp16.

        For each new number of tokens oneDNN compiles a kernel, in some 50 ms: a sixth of MiniLM's
        training step.
        """
        if precision == "fp32":
            return num_tokens
        multiple = max(1, 2 ** (num_tokens.bit_length() - 5))
        return -(-num_tokens // multiple) * multiple

    @contextlib.contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        from minift.models import attention
        from minift_cpu.dropout import dropout

        before, attention.drop_elements = attention.drop_elements, dropout
        try:
            with super().autocast(precision):
                yield
        finally:
            attention.drop_elements = before

    def all_reduce_gradients(self, grads: "Sequence[Tensor]") -> "Sequence[Tensor]":
        return gradients.all_reduce_gradients(grads, self.all_reduce_flat)

    def all_reduce_flat(self, tensors: "list[Tensor]") -> "Tensor":
        if self.shared_sum is None or not self.shared_sum.fits(tensors):
            return super().all_reduce_flat(tensors)
        return self.shared_sum.all_reduce_flat(tensors)


def processor() -> set[str]:
    """Return the words in /proc/cpuinfo; torch knows them too, but would have to be imported.

    Without Linux there are none, so bf16 counts as slow.
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


@hookimpl
def minift_register_devices():
    return {"cpu": CpuDevice}
