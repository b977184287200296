"""Learning-rate schedules: the rate at each step is `learning_rate * factor(name, step, ...)`.

A step is an optimizer update, counted from 0. During warm-up every schedule but "constant" rises
from 0 as step / warmup; the functions below give the factor after that, starting from 1. They
depend on their arguments alone, so that a resumed run has the same rates.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

from minift.errors import ConfigError, nearest


def constant(step: int, warmup: int, total: int) -> float:
    return 1.0


def linear(step: int, warmup: int, total: int) -> float:
    """Fall in a straight line to 0 at the last step."""
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine(step: int, warmup: int, total: int) -> float:
    """Fall to 0 as half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def polynomial(
    step: int, warmup: int, total: int, power: float = 1.0, lr_end: float = 1e-7, lr: float = 1.0
) -> float:
    """Fall from `lr`, the learning rate, to `lr_end` as a power of the remaining share of steps."""
    if step > total:
        return lr_end / lr
    remaining = 1 - (step - warmup) / max(1, total - warmup)
    return ((lr - lr_end) * remaining**power + lr_end) / lr


def inverse_sqrt(step: int, warmup: int, total: int, timescale: int | None = None) -> float:
    """Fall as 1 / sqrt(step / warmup) (Vaswani et al. 2017, arXiv 1706.03762)."""
    timescale = timescale or warmup or 10_000
    return 1 / math.sqrt((step + timescale - warmup) / timescale)


SHAPES = (linear, constant, cosine, polynomial, inverse_sqrt)
SCHEDULES: dict[str, Callable[..., float]] = {shape.__name__: shape for shape in SHAPES}
SCHEDULES["constant_with_warmup"] = constant

ENDLESS = ("constant", "constant_with_warmup", "inverse_sqrt")  # need no num_training_steps


def factor(name: str, step: int, warmup: int, total: int, **settings: Any) -> float:
    """Return the learning rate of a step as a share of its peak, 0 to 1."""
    if step < warmup and name != "constant":
        return step / warmup
    return SCHEDULES[name](step, warmup, total, **settings)


def get_scheduler(
    name: str, optimizer: Any, num_warmup_steps: int | None = None,
    num_training_steps: int | None = None, scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """Return a torch scheduler: call `.step()` after each `optimizer.step()`.

    Args:
        name: one of SCHEDULES.
        optimizer: its learning rates are the peaks.
        num_warmup_steps: optimizer updates during which the rate rises.
        num_training_steps: optimizer updates in all.
        scheduler_specific_kwargs: `power` and `lr_end` of polynomial, `timescale` of inverse_sqrt.

    Raises:
        ConfigError: there is no such schedule or setting, or the schedule needs a number of steps.
    """
    from torch.optim.lr_scheduler import LambdaLR

    if name not in SCHEDULES:
        raise ConfigError(f"no schedule is called {name!r}", expected=nearest(name, SCHEDULES))
    if num_warmup_steps is None and name != "constant":
        raise ConfigError(f"the schedule {name!r} needs num_warmup_steps")
    if num_training_steps is None and name not in ENDLESS:
        raise ConfigError(f"the schedule {name!r} needs num_training_steps")
    warmup, total = num_warmup_steps or 0, num_training_steps or 0
    settings = dict(scheduler_specific_kwargs or {})
    known = [*inspect.signature(SCHEDULES[name]).parameters][3:]
    allowed = [setting for setting in known if setting != "lr"]
    for setting in [name for name in settings if name not in allowed]:
        what = f"the schedule {name!r} has no setting {setting!r}"
        raise ConfigError(what, expected=", ".join(allowed) or "none")
    if "lr" in known:
        settings["lr"] = optimizer.defaults["lr"]
        if not 0 <= settings.get("lr_end", 1e-7) < settings["lr"]:
            raise ConfigError("lr_end must be below the learning rate", got=settings["lr"])
    return LambdaLR(optimizer, lambda step: factor(name, step, warmup, total, **settings))


def get_linear_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int
) -> Any:
    """Return `get_scheduler("linear", ...)`, under the name that older scripts use."""
    return get_scheduler("linear", optimizer, num_warmup_steps, num_training_steps)
