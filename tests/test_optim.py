"""AdamW against torch's own plain form, in both of its forms, and what is decayed."""

import copy
import json

import pytest
import torch
from torch import nn

from minift import AdamW
from minift.errors import ConfigError
from minift.models.bert import BertForSequenceClassification
from minift.models.encoder import EncoderConfig
from minift.optim import parameter_groups

FORMS = [pytest.param(True, id="fused"), pytest.param(False, id="readable")]
SHAPES = [(7, 5), (1,), (33,), (2, 3, 4)]


def make_parameters(value=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [nn.Parameter(t if value is None else torch.full_like(t, value)) for t in made]


def set_gradients(parameters, step, scale=1.0):
    """Sizes from 1e-6 to 1e6, the same for the same step."""
    generator = torch.Generator().manual_seed(1000 + step)
    for p in parameters:
        sizes = 10.0 ** (12 * torch.rand(p.shape, generator=generator) - 6)
        p.grad = torch.randn(p.shape, generator=generator) * sizes * scale


def snapshot(parameters, optimizer):
    """Every number that a step could change."""
    state = [optimizer.state[p][key] for p in parameters if p in optimizer.state
             for key in ("step", "exp_avg", "exp_avg_sq")]  # fmt: skip
    return [t.detach().clone() for t in [*parameters, *state]]


def assert_near(got, want, rtol):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=rtol, atol=0)


# ------------------------------------------------------------------------------------ against torch


@pytest.mark.parametrize("fused", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 5e-5, "weight_decay": 0.0},
        {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.3},
        {"betas": (0.0, 0.0), "lr": 1e-4},
        {"betas": (0.9, 0.99999)},
    ],
    ids=str,
)
def test_a_hundred_steps_as_torch(fused, options):
    ours, theirs = make_parameters(), make_parameters()
    optimizer = AdamW(ours, **options, fused=fused)
    reference = torch.optim.AdamW(theirs, **{"weight_decay": 1e-2, **options}, foreach=False,
                                  fused=False)  # fmt: skip
    for step in range(100):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-7)
        for key in ("exp_avg", "exp_avg_sq"):
            mine, other = optimizer.state[p][key], reference.state[q][key]
            torch.testing.assert_close(mine, other, rtol=2e-6, atol=1e-6 * float(other.abs().max()))
        assert float(optimizer.state[p]["step"]) == 100


@pytest.mark.parametrize("fused", FORMS)
def test_the_first_steps_to_seven_digits(fused):
    """From zero and without decay a parameter is the sum of its updates, so nothing hides them.

    1 - 0.999**t in fp32 would be off by 5e-5 here.
    """
    ours, exact = make_parameters(0.0), [p.detach().double() for p in make_parameters(0.0)]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in exact]
    optimizer = AdamW(ours, lr=1e-3, eps=0.0, weight_decay=0.0, fused=fused)
    for t in range(1, 6):
        set_gradients(ours, t)
        for p, (m, v), mine in zip(exact, moments, ours, strict=True):
            g = mine.grad.double()
            m.mul_(0.9).add_(g, alpha=0.1)
            v.mul_(0.999).add_(g * g, alpha=0.001)
            p -= 1e-3 * (m / (1 - 0.9**t)) / (v / (1 - 0.999**t)).sqrt()
        optimizer.step()
        for p, mine in zip(exact, ours, strict=True):
            assert float((mine.detach() - p).abs().max()) <= 5e-7 * 1e-3 * t


def test_the_two_forms_agree():
    forms = []
    for fused in (True, False):
        parameters = make_parameters()
        optimizer = AdamW(parameters, lr=1e-2, weight_decay=0.1, fused=fused)
        for step in range(50):
            set_gradients(parameters, step)
            optimizer.step()
        forms.append(parameters)
    for p, q in zip(*forms, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_the_fused_form_is_the_default_in_host_memory():
    runs = []
    for fused in (None, True):
        parameters = make_parameters()
        optimizer = AdamW(parameters, fused=fused)
        set_gradients(parameters, 0)
        optimizer.step()
        runs.append(parameters)
    assert all(torch.equal(p, q) for p, q in zip(*runs, strict=True))


# ------------------------------------------------------------------------ scaled and masked updates


@pytest.mark.parametrize("fused", FORMS)
def test_grad_scale_divides_the_gradients(fused):
    plain, scaled = make_parameters(), make_parameters()
    one, other = AdamW(plain, fused=fused), AdamW(scaled, fused=fused)
    for step in range(5):
        set_gradients(plain, step)
        set_gradients(scaled, step, scale=64.0)
        one.step()
        other.grad_scale = torch.tensor(64.0)
        other.step()
    assert_near(snapshot(scaled, other), snapshot(plain, one), rtol=1e-6)


@pytest.mark.parametrize("fused", FORMS)
@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf")])
def test_found_inf_leaves_everything_as_it_was(fused, value):
    """Parameters, moments, step count: as if the step had not been asked for."""
    parameters = make_parameters()
    optimizer = AdamW(parameters, lr=0.1, weight_decay=0.5, fused=fused)
    set_gradients(parameters, 0)
    optimizer.step()
    before = snapshot(parameters, optimizer)
    for p in parameters:
        p.grad.fill_(value)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(snapshot(parameters, optimizer), before,
                                                 strict=True))  # fmt: skip
    optimizer.found_inf = torch.tensor(0.0)
    set_gradients(parameters, 1)
    optimizer.step()
    after = snapshot(parameters, optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("fused", FORMS)
def test_found_inf_in_the_very_first_step(fused):
    parameters = make_parameters()
    optimizer = AdamW(parameters, fused=fused)
    set_gradients(parameters, 0)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    for p, q in zip(parameters, make_parameters(), strict=True):
        assert torch.equal(p, q) and float(optimizer.state[p]["step"]) == 0


@pytest.mark.parametrize("fused", FORMS)
def test_torchs_own_scaler(fused):
    """It sets both attributes, skips what overflowed, and deletes them afterwards."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    scaled, plain = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer, reference = AdamW([scaled], fused=fused), AdamW([plain], fused=fused)
    for factor in (1.0, 2.0, float("inf"), 3.0):
        for p, used in ((scaled, optimizer), (plain, reference)):
            used.zero_grad()
            loss = (p * torch.tensor([1.0, -2.0, 0.5])).sum() * factor
            (scaler.scale(loss) if used is optimizer else loss).backward()
        if factor == 2.0:
            scaler.unscale_(optimizer)  # as for clipping
        scaler.step(optimizer)
        scaler.update()
        if factor != float("inf"):
            reference.step()
    torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=0)
    assert scaler.get_scale() == 512.0
    assert float(optimizer.state[scaled]["step"]) == 3
    scaled.grad = torch.ones(3)
    optimizer.step()  # and without the scaler again
    assert float(optimizer.state[scaled]["step"]) == 4


# ------------------------------------------------------------------------------- being an optimizer


@pytest.mark.parametrize("fused", FORMS)
def test_what_has_no_gradient_stays(fused):
    parameters = make_parameters()
    optimizer = AdamW(parameters, lr=1.0, weight_decay=0.5, fused=fused)
    set_gradients(parameters, 0)
    parameters[1].grad = None
    optimizer.step()
    assert torch.equal(parameters[1], make_parameters()[1])
    assert parameters[1] not in optimizer.state
    assert not torch.equal(parameters[0], make_parameters()[0])
    optimizer.zero_grad()
    optimizer.step()  # nothing has one
    assert float(optimizer.state[parameters[0]]["step"]) == 1


@pytest.mark.parametrize("fused", FORMS)
def test_a_saved_state_goes_on_to_the_bit(fused):
    parameters = make_parameters()
    optimizer = AdamW(parameters, lr=1e-2, fused=fused)
    for step in range(3):
        set_gradients(parameters, step)
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    json.dumps(saved["param_groups"])  # a checkpoint writes them as JSON
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    again = AdamW(copies, lr=77.0, fused=fused)
    again.load_state_dict(saved)
    for step in range(3, 6):
        for which, used in ((parameters, optimizer), (copies, again)):
            set_gradients(which, step)
            used.step()
    got, want = snapshot(copies, again), snapshot(parameters, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_loaded_state_is_where_its_parameters_are():
    """torch leaves step counts in host memory; the fused kernel of a device wants them there."""
    parameters = make_parameters()
    optimizer = AdamW(parameters)
    set_gradients(parameters, 0)
    optimizer.step()
    elsewhere = AdamW([nn.Parameter(p.detach().to("meta")) for p in parameters])
    elsewhere.load_state_dict(optimizer.state_dict())
    for state in elsewhere.state.values():
        assert all(value.is_meta for value in state.values())


@pytest.mark.parametrize("fused", FORMS)
def test_the_rate_of_the_group_is_used(fused):
    """A schedule writes it there; each group has its own, and its own decay."""
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [p], "weight_decay": 0.5}, {"params": [q], "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=1.0, fused=fused)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.param_groups[1]["lr"] = 0.0
    p.grad, q.grad = torch.zeros(2), torch.ones(2)
    optimizer.step()
    assert p.tolist() == pytest.approx([0.95, 0.95])
    assert q.tolist() == [1.0, 1.0]


def test_a_closure_is_called_with_gradients_on():
    p = nn.Parameter(torch.ones(1))
    optimizer = AdamW([p], lr=0.1)

    def closure():
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert float(p.detach()) < 1.0


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"betas": (0.9, 1.5)}, {"lr": float("nan")}]
)
def test_settings_that_cannot_be_right(options):
    with pytest.raises(ConfigError):
        AdamW([nn.Parameter(torch.ones(1))], **options)


# ---------------------------------------------------------------------------------- what is decayed


def decayed_names(model):
    groups = parameter_groups(model, 0.01)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0][: len(groups)]
    every = [names[id(p)] for group in groups for p in group["params"]]
    assert len(every) == len(set(every))
    return {names[id(p)] for p in groups[0]["params"]}, set(every)


def test_matrices_of_bert_are_decayed_and_nothing_else():
    small = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    config = EncoderConfig.from_dict({**small, "num_hidden_layers": 1})
    model = BertForSequenceClassification(config)
    decayed, every = decayed_names(model)
    assert every == {name for name, _ in model.named_parameters()}
    assert decayed == {name for name in every if name.endswith("weight") and "Norm" not in name}
    assert {"bert.embeddings.word_embeddings.weight", "classifier.weight"} <= decayed
    layer = "bert.encoder.layer.0.attention"
    assert {f"{layer}.self.query.weight", f"{layer}.output.dense.weight"} <= decayed


class Odd(nn.Module):
    """Parameters whose names or modules decide, one by one."""

    def __init__(self):
        super().__init__()
        self.named_otherwise = nn.LayerNorm(2)
        self.norm = nn.Linear(2, 2, bias=False)
        self.attn_norm = nn.Linear(2, 2, bias=False)
        self.RMSNorm = nn.Linear(2, 2, bias=False)
        self.normal = nn.Linear(2, 2, bias=False)
        self.renormed = nn.Linear(2, 2, bias=False)
        self.scale = nn.Parameter(torch.ones(2))
        self.bias_table = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.tied = self.normal


def test_the_rule_by_names_and_modules():
    """That of transformers.Trainer, its regular expressions included."""
    decayed, every = decayed_names(Odd())
    assert decayed == {"normal.weight", "renormed.weight", "scale"}
    assert "frozen" not in every and "named_otherwise.weight" in every


def test_no_group_is_empty():
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1
    assert parameter_groups(nn.LayerNorm(2), 0.1)[0]["weight_decay"] == 0.0
