"""Learning-rate schedules: their shapes; test_golden.py holds the numbers of transformers."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minift import get_linear_schedule_with_warmup, get_scheduler
from minift.errors import ConfigError
from minift.schedule import SCHEDULES, factor


def make_optimizer(lr=2.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(scheduler, optimizer, steps):
    """The rates that the first updates use."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("linear", [0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0]),
        ("constant", [2.0] * 8),
        ("constant_with_warmup", [0.0, 1.0, *[2.0] * 6]),
        ("cosine", [0.0, 1.0, 2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0]),
        ("polynomial", [0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 1e-7, 1e-7]),
        ("inverse_sqrt", [0.0, 1.0, 2.0, 2 / 1.5**0.5, 2 / 2**0.5, 2 / 2.5**0.5, 2 / 3**0.5]),
    ],
)
def test_shapes(name, want):
    """Two steps of warm-up of six in all; the last update still has a rate above zero."""
    optimizer = make_optimizer()
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=6)
    assert rates(scheduler, optimizer, len(want)) == pytest.approx(want)


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 30), st.integers(1, 30))
def test_every_factor_is_a_share(name, warmup, total):
    factors = [factor(name, step, warmup, total) for step in range(total + 1)]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    assert factors[:warmup] == sorted(factors[:warmup])
    if "constant" not in name:
        assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


def test_without_warmup_the_first_step_has_the_full_rate():
    for name in SCHEDULES:
        assert factor(name, 0, 0, 10) == 1.0


def test_each_group_keeps_its_own_rate():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=2.0)
    scheduler = get_scheduler("linear", optimizer, 0, 4)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1.5, 0.375]


def test_a_saved_schedule_goes_on():
    optimizer = make_optimizer()
    scheduler = get_scheduler("cosine", optimizer, 2, 9)
    whole = rates(scheduler, optimizer, 9)
    optimizer = make_optimizer()
    scheduler = get_scheduler("cosine", optimizer, 2, 9)
    rates(scheduler, optimizer, 4)
    saved = json.loads(json.dumps(scheduler.state_dict()))
    group = dict(optimizer.param_groups[0], params=None)
    optimizer = make_optimizer()
    scheduler = get_scheduler("cosine", optimizer, 2, 9)
    scheduler.load_state_dict(saved)
    optimizer.param_groups[0]["lr"] = group["lr"]
    assert rates(scheduler, optimizer, 5) == whole[4:]


def test_the_older_name():
    optimizer = make_optimizer()
    scheduler = get_linear_schedule_with_warmup(optimizer, 2, 6)
    assert rates(scheduler, optimizer, 4) == [0.0, 1.0, 2.0, 1.5]


def test_a_name_that_is_none():
    with pytest.raises(ConfigError, match="liner") as caught:
        get_scheduler("liner", make_optimizer(), 0, 10)
    assert "'linear'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "numbers", "missing"),
    [
        ("linear", {}, "num_warmup_steps"),
        ("linear", {"num_warmup_steps": 0}, "num_training_steps"),
        ("cosine", {"num_training_steps": 10}, "num_warmup_steps"),
        ("constant_with_warmup", {}, "num_warmup_steps"),
    ],
)
def test_a_number_that_is_needed(name, numbers, missing):
    """Without it a linear schedule would have the rate 0 from the first step on."""
    with pytest.raises(ConfigError, match=missing):
        get_scheduler(name, make_optimizer(), **numbers)


def test_a_number_that_is_not_needed():
    get_scheduler("constant", make_optimizer())
    get_scheduler("constant_with_warmup", make_optimizer(), num_warmup_steps=3)


def test_settings_of_one_schedule():
    optimizer = make_optimizer()
    settings = {"power": 2.0, "lr_end": 0.5}
    scheduler = get_scheduler("polynomial", optimizer, 0, 4, settings)
    want = [0.5 + 1.5 * (left / 4) ** 2 for left in (4, 3, 2, 1, 0)]
    assert rates(scheduler, optimizer, 5) == pytest.approx(want)
    optimizer = make_optimizer()
    scheduler = get_scheduler("inverse_sqrt", optimizer, 2, None, {"timescale": 4})
    assert rates(scheduler, optimizer, 4) == pytest.approx([0.0, 1.0, 2.0, 2 / 1.25**0.5])
    endless = get_scheduler("inverse_sqrt", make_optimizer(), 0)
    assert endless.lr_lambdas[0](10_000) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("linear", {"power": 2.0}, "no setting 'power'"),
        ("polynomial", {"lr": 2.0}, "no setting 'lr'"),
        ("polynomial", {"lr_end": 3.0}, "lr_end must be below"),
        ("inverse_sqrt", {"power": 2.0}, "timescale"),
    ],
)
def test_settings_that_a_schedule_does_not_have(name, settings, message):
    with pytest.raises(ConfigError) as caught:
        get_scheduler(name, make_optimizer(), 1, 4, settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_no_step_at_all_and_a_resumed_step(name):
    """A factor depends on the step alone, so a schedule taken up again goes on as it was."""
    assert 0.0 <= factor(name, 0, 0, 0) <= 1.0
    optimizer = make_optimizer()
    whole = rates(get_scheduler(name, optimizer, 2, 9), optimizer, 9)
    optimizer = make_optimizer()
    first = get_scheduler(name, optimizer, 2, 9)
    begun = rates(first, optimizer, 4)
    second = make_optimizer()
    resumed = get_scheduler(name, second, 2, 9)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
    assert [*begun, *rates(resumed, second, 5)] == whole
