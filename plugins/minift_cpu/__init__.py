"""The host's processors.

`Device` itself is plain eager PyTorch in host memory, so all that this plugin knows is the
processor: whether it multiplies bf16 numbers natively.
"""

from pathlib import Path

from minift import Device, hookimpl


class CpuDevice(Device):
    name = "cpu"

    def precisions(self) -> dict[str, str | None]:
        slow = None if bf16_instructions() else "this processor has no bf16 instructions"
        return {"fp32": None, "bf16": slow}


def bf16_instructions() -> set[str]:
    """Those of the processor's features that multiply bf16 (x86: AVX-512, AMX; Arm: BF16).

    Read from the kernel rather than from torch, which would have to be imported to be asked.
    Elsewhere than on Linux the answer is "none", and fp32 is always right.
    """
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return words & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}


@hookimpl
def minift_devices():
    return {"cpu": CpuDevice}
