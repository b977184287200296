"""What the cpu plugin knows of the machine, and that it changes nothing but speed."""

import hashlib
import math
import subprocess
import sys

import minift_cpu
import pytest
import torch
import torch.nn.functional as F
from minift_cpu import CpuDevice, bf16_instructions
from minift_cpu.dropout import dropout

from minift.models import attention
from minift.models.unpadding import add_unpadding
from minift.testing import tiny

AVX512 = {"avx2", "avx512f", "avx512_bf16"}


@pytest.fixture
def machine(monkeypatch):
    """Call it with a processor's words."""

    def become(words):
        monkeypatch.setattr(minift_cpu, "processor", lambda: set(words))

    return become


def test_products_of_fp32_take_torchs_own_way():
    """A library chosen by speed could differ between two processes, or when a run is resumed."""
    setting, device, seen = torch.backends.mkldnn.matmul, CpuDevice(), []
    before = setting.fp32_precision
    x = torch.ones(2, 2, requires_grad=True)
    x.register_hook(lambda grad: seen.append(setting.fp32_precision))
    with device.autocast("fp32"):
        seen.append(setting.fp32_precision)
        loss = (x @ x).sum()
    device.backward(loss)
    assert seen == [before, before]


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


@pytest.mark.slow
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


@pytest.mark.slow
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


# ------------------------------------------------------------------------- sizes of 16-bit products


def test_unpadded_sizes_in_16_bits_are_few():
    device = CpuDevice()
    sizes = {P: device.unpadded_size(P, "bf16") for P in range(1, 4097)}
    assert all(0 <= size - P <= P / 16 for P, size in sizes.items())
    for octave in range(4, 12):
        assert len({n for n in sizes.values() if 2**octave <= n < 2 ** (octave + 1)}) == 16
    assert device.unpadded_size(707, "bf16") == device.unpadded_size(707, "fp16") == 704 + 32
    assert device.unpadded_size(707, "fp32") == 707
    batch = add_unpadding({"attention_mask": torch.ones(7, 101)}, device, "bf16")
    assert batch["unpadding"].num_extra_tokens == 704 + 32 - 707
    batch = add_unpadding({"attention_mask": torch.ones(7, 101)}, device, "fp32")
    assert batch["unpadding"].num_extra_tokens == 0


# ---------------------------------------------------------------------------------------- dropout


def test_dropout_keeps_the_right_share():
    """Five standard errors of a binomial; the scale is exactly one over the kept share."""
    n = 1 << 20
    for p in (0.1, 0.25, 0.5, 0.9):
        torch.manual_seed(int(p * 100))
        kept = dropout(torch.ones(n), p)
        share = round(p * 65536) / 65536
        assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - share)))}
        error = math.sqrt(share * (1 - share) / n)
        assert abs(float((kept != 0).double().mean()) - (1 - share)) < 5 * error
        assert abs(float(kept.double().mean()) - 1) < 5 * error / (1 - share)


def test_a_model_drops_by_the_devices_function_only_while_the_device_computes():
    device = CpuDevice()
    with pytest.raises(ZeroDivisionError), device.autocast("fp32"):
        assert attention.drop_elements is dropout
        _ = 1 / 0
    assert attention.drop_elements is F.dropout


@pytest.mark.parametrize("piece", range(4))
def test_each_piece_of_a_draw_has_the_right_share(piece):
    """Four elements share one draw of 64 bits; each 16 of them must be uniform."""
    torch.manual_seed(1)
    kept = dropout(torch.ones(1 << 20), 0.1).view(-1, 4)[:, piece] != 0
    assert abs(float(kept.double().mean()) - 0.9) < 5 * math.sqrt(0.09 / len(kept))


def test_neighbouring_elements_are_independent():
    """Correlations at small distances, within a draw of 64 bits and across draws."""
    torch.manual_seed(2)
    n = 1 << 20
    for p in (0.1, 0.5):
        kept = (dropout(torch.ones(n), p) != 0).double()
        centred = (kept - kept.mean()) / kept.std()
        for distance in (*range(1, 13), 64, 384):
            assert abs(float((centred[:-distance] * centred[distance:]).mean())) < 5 / n**0.5
        # all four of a draw at once: pairwise independence would not see a parity
        assert abs(float(centred.view(-1, 4).prod(1).mean())) < 5 / (n / 4) ** 0.5


def test_low_bits_of_a_draw_count_too():
    """With p of 2**-16 only one value of 65,536 is dropped: all 16 bits must vary."""
    torch.manual_seed(3)
    n, p = 1 << 23, 2**-16
    dropped = int((dropout(torch.ones(n), p) == 0).sum())
    assert abs(dropped - n * p) < 5 * math.sqrt(n * p)


def test_dropout_depends_on_the_seed_alone():
    x = torch.ones(1001)

    def masks(seed):
        torch.manual_seed(seed)
        return [dropout(x, 0.3) for _ in range(2)]

    first, again, other = masks(5), masks(5), masks(6)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 4, 5), (0, 4)])
def test_the_gradient_of_dropout_is_its_mask(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    y = dropout(x, 0.5)
    y.sum().backward()
    assert y.shape == x.shape
    assert torch.equal(x.grad * x.detach(), y.detach())
    assert set(x.grad.flatten().tolist()) <= {0.0, 2.0}


def test_dropout_of_halves_is_scaled_in_fp32():
    """With autocast it stays fp32, as the sum that follows would make it; without, it is halves."""
    x = torch.randn(50, 7).bfloat16().requires_grad_()
    torch.manual_seed(0)
    plain = dropout(x, 0.1)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact = dropout(x, 0.1)
    assert plain.dtype == torch.bfloat16 and exact.dtype == torch.float32
    assert torch.equal(exact.bfloat16(), plain)
    scale = 65536 / (65536 - round(0.1 * 65536))
    kept = exact != 0
    assert torch.equal(exact[kept], x[kept].float() * torch.tensor(scale, dtype=torch.float32))
    exact.sum().backward()
    assert x.grad.dtype == torch.bfloat16


def test_the_masks_of_a_seed_stay_what_they_are():
    """Other masks would be another run, from the same seed and after a resume."""
    torch.manual_seed(5)
    pieces = [dropout(torch.ones(n), p) for n, p in ((1001, 0.1), (64, 0.3), (3, 0.5))]
    digest = hashlib.sha256(torch.cat(pieces).numpy().tobytes()).hexdigest()
    assert digest == "604471fd019571b51705b7844c042940dab2cb4d041b39386da9f523b515d78e"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_models_drop_by_it_in_a_forward_pass_of_the_device(precision):
    model, device = tiny.model(dropout=0.5).train(), CpuDevice()
    batch = tiny.batches(4, 4)[0]
    calls = []

    def counted(x, p):
        calls.append(p)
        return dropout(x, p)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minift_cpu.dropout, "dropout", counted)
        with device.autocast(precision):
            model(**batch)
    assert len(calls) == 1 + 3 * 2 + 1  # embeddings, two layers, the classifier
    model(**batch)
    assert len(calls) == 8, "outside it drops by torch's own"
