"""What the cpu plugin knows of the machine, and that it changes nothing but speed."""

import subprocess
import sys

import minift_cpu
import pytest
import torch
from minift_cpu import CpuDevice, bf16_instructions, compare_products, onednn_products

AVX512 = {"avx2", "avx512f", "avx512_bf16"}


@pytest.fixture
def machine(monkeypatch):
    """Call it with a processor's words, and what comparing the products there would find."""

    def become(words, faster=2.0, error=3e-7):
        monkeypatch.setattr(minift_cpu, "processor", lambda: set(words))
        monkeypatch.setattr(minift_cpu, "compare_products", lambda: (faster, error))
        minift_cpu.onednn_is_better.cache_clear()

    yield become
    minift_cpu.onednn_is_better.cache_clear()


def setting():
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.mark.parametrize(
    ("words", "faster", "error", "chosen"),
    [
        (AVX512, 2.0, 3e-7, True),
        (AVX512, 1.1, 3e-7, False),
        (AVX512, 2.0, 3e-3, False),
        (AVX512 | {"amx_tile", "amx_bf16"}, 2.0, 3e-7, False),
        ({"avx2"}, 2.0, 3e-7, False),
        (set(), 2.0, 3e-7, False),
    ],
    ids=["faster", "no faster", "not exact", "amx", "avx2", "no linux"],
)
def test_onednn_is_chosen_where_it_is_faster_and_exact(machine, words, faster, error, chosen):
    machine(words, faster, error)
    assert minift_cpu.onednn_is_better() == chosen


def test_the_choice_is_made_and_printed_once(machine, capsys):
    machine(AVX512)
    device = CpuDevice()
    for _ in range(3):
        with device.autocast("fp32"):
            pass
    assert capsys.readouterr().err.count("fp32 products through oneDNN") == 1


def test_the_switch_is_on_in_forward_and_backward_alone(machine):
    machine(AVX512)
    device, before, seen = CpuDevice(), setting(), []
    x = torch.ones(2, 2, requires_grad=True)
    x.register_hook(lambda grad: seen.append(setting()))
    with device.autocast("fp32"):
        seen.append(setting())
        loss = (x @ x).sum()
    assert setting() == before
    device.backward(loss)
    assert seen == ["bf16", "bf16"] and setting() == before


def test_the_switch_is_put_back_after_an_error():
    before = setting()
    with pytest.raises(ZeroDivisionError), onednn_products():
        _ = 1 / 0
    assert setting() == before


def test_where_onednn_is_not_chosen_nothing_is_switched(machine):
    machine({"avx2"})
    before = setting()
    with CpuDevice().autocast("fp32"):
        assert setting() == before


def test_the_comparison_is_real():
    """On any machine: a positive ratio, and an error that is that of a 32-bit number, or of 16."""
    faster, error = compare_products()
    assert faster > 0
    assert 1e-9 < error < 1e-2
    if not any(word.startswith("amx") for word in minift_cpu.processor()):
        assert error < 1e-6


def test_bf16_is_native_where_the_processor_says_so(machine):
    machine({"avx2"})
    assert not bf16_instructions() and CpuDevice().precisions()["bf16"] is not None
    machine(AVX512)
    assert bf16_instructions() == {"avx512_bf16"} and CpuDevice().precisions()["bf16"] is None


FAULTS = """
import resource, sys, torch
from minift_cpu import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(10):  # until it has all that it will need
    torch.ones(12 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(12 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_kept():
    """A block of 48 MB (the gradient of an embedding) taken ten times: nearly no page faults."""

    def faults(word):
        command = [sys.executable, "-c", FAULTS, word]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return int(done.stdout)

    assert faults("kept") < faults("usual") / 2


INTERRUPTED = """
import os, signal, sys
import numpy as np, torch
from minift_cpu import CpuDevice

class CtrlC(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass  # a handler runs between two of Python's instructions
        return grad

weight = torch.ones(4, requires_grad=True)
try:
    rows = torch.from_numpy(np.arange(4))  # the last to know them is autograd
    CpuDevice().backward(weight[rows].sum() + CtrlC.apply(weight).sum())
except KeyboardInterrupt:
    print(weight.grad.tolist())
    del rows
    sys.exit(130)
"""


def test_ctrl_c_in_a_backward_pass_waits_for_its_end():
    """With torch 2.9 the process would otherwise never go away."""
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "[2.0, 2.0, 2.0, 2.0]\n"), done.stderr


def test_the_norm_of_millions_of_gradients_keeps_its_digits():
    """torch's own, of as many numbers in one tensor, is wrong in the fourth digit."""
    parameters = [torch.nn.Parameter(torch.empty(shape)) for shape in [(8000, 384), (384,), ()]]
    generator = torch.Generator().manual_seed(0)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)
    want = torch.cat([p.grad.double().flatten() for p in parameters]).norm()
    norm = CpuDevice().clip_grad_norm(torch.optim.SGD(parameters), 0.0)
    assert norm.item() == pytest.approx(want.item(), rel=3e-7)
