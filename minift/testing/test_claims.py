"""A device does what it says of itself: precisions, counters, and when it reads its batches."""

import pytest
import torch

from minift import AdamW
from minift.testing import tiny

COMPUTED_IN = {"bf16": torch.bfloat16, "fp16": torch.float16}
READ_AHEAD = 16  # batches at most: what is read and not yet trained on takes memory


def offered(device, precision):
    if precision not in device.precisions():
        pytest.skip(f"{device.name} does not offer {precision}")


@pytest.mark.parametrize("precision", COMPUTED_IN)
def test_a_precision_that_is_offered_is_computed_in(device, precision):
    """Matrix products come out in it; parameters and what is added up stay fp32.

    Likely causes: `autocast` is overridden and ignores its argument, or names another type.
    """
    offered(device, precision)
    device.setup_precision(precision)
    layer = device.prepare(torch.nn.Linear(8, 8))
    with device.autocast(precision):
        out = layer(torch.ones(2, 8, device=device.torch_device))
    assert out.dtype == COMPUTED_IN[precision], f"{precision} was computed in {out.dtype}"
    with device.autocast("fp32"):
        assert layer(torch.ones(2, 8, device=device.torch_device)).dtype == torch.float32
    assert {p.dtype for p in layer.parameters()} == {torch.float32}


def test_losses_in_fp16_are_scaled(device):
    """Gradients below 6e-8 are zero in fp16, so losses are multiplied before backward.

    Likely cause: `setup_precision` is overridden and does not call the base class's.
    """
    offered(device, "fp16")
    device.setup_precision("fp16")
    assert device.scaler is not None and device.scaler.is_enabled(), "there is no scaler for fp16"
    weight = torch.nn.Parameter(torch.ones(4, device=device.torch_device))
    optimizer = AdamW([weight], lr=0.1)
    device.backward((weight * 1e-3).sum())
    norm = device.fetch({"norm": device.clip_grad_norm(optimizer, 0.0, 1)})["norm"]
    assert norm == pytest.approx(2e-3, rel=1e-3), f"the norm of gradients is {norm}, not 2e-3"
    device.setup_precision("fp32")
    assert device.scaler is None, "a scaler stays after setup_precision('fp32')"


def test_parameters_stay_fp32(device):
    """`prepare` moves a model and converts nothing: mixed precision converts in `autocast`."""
    moved = device.prepare(tiny.model())
    assert {p.dtype for p in moved.parameters()} == {torch.float32}
    assert {value.dtype for value in tiny.copied(device, moved).values()} == {torch.float32}


def test_batches_are_read_when_they_are_needed(device):
    """A loader may be as long as an epoch: it is not read before the first batch is asked for.

    Likely cause: `batches` makes a list of the loader.
    """
    read = []

    def loader():
        for batch in tiny.batches(64, 1):
            read.append(1)
            yield batch

    batches = device.batches(loader())
    assert len(read) <= READ_AHEAD, f"{len(read)} batches were read before one was asked for"
    next(iter(batches))
    assert len(read) <= READ_AHEAD, f"{len(read)} batches were read for the first one"
    batches.close()


def test_what_is_counted_counts(device):
    """A counter that stays 0 shows nothing: leave out what the device does not count."""
    before = device.counters()
    tiny.update(device, lambda parameters: AdamW(parameters, lr=0.01))
    after = device.counters()
    for name in {"transfers_to_host", "compilations"} & set(after):
        assert after[name] > before.get(name, 0) or before.get(name, 0) > 0, f"{name} stayed 0"
