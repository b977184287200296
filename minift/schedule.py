"""Learning-rate schedules: pure functions of the step, `factor(step) * learning_rate`.

With w warm-up steps of N in all: during warm-up every schedule rises as step / w. Step counts
optimizer updates from 0; update k uses factor(k).
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

from minift.errors import ConfigError, nearest


def constant(step: int, warmup: int, total: int) -> float:
    return 1.0


def constant_with_warmup(step: int, warmup: int, total: int) -> float:
    return step / max(1, warmup) if step < warmup else 1.0


def linear(step: int, warmup: int, total: int) -> float:
    """Up to 1, then straight down to 0 at the last step."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine(step: int, warmup: int, total: int) -> float:
    """Up to 1, then half a cosine down to 0 (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def polynomial(
    step: int, warmup: int, total: int, power: float = 1.0, lr_end: float = 1e-7, lr: float = 1.0
) -> float:
    """Up to 1, then down to lr_end as a power of what is left; lr is the rate that 1 stands for."""
    if step < warmup:
        return step / max(1, warmup)
    if step > total:
        return lr_end / lr
    left = 1 - (step - warmup) / max(1, total - warmup)
    return ((lr - lr_end) * left**power + lr_end) / lr


def inverse_sqrt(step: int, warmup: int, total: int, timescale: int | None = None) -> float:
    """Up to 1, then down as 1 / sqrt(step / warmup) (Vaswani et al. 2017, arXiv 1706.03762)."""
    if step < warmup:
        return step / max(1, warmup)
    scale = timescale or warmup or 10_000
    return 1 / math.sqrt((step + scale - warmup) / scale)


SCHEDULES: dict[str, Callable[..., float]] = {
    "linear": linear,
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "cosine": cosine,
    "polynomial": polynomial,
    "inverse_sqrt": inverse_sqrt,
}

ENDLESS = ("constant", "constant_with_warmup", "inverse_sqrt")  # they do not ask how long it takes


def get_scheduler(
    name: str,
    optimizer: Any,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> Any:
    """A torch scheduler: call `.step()` after each `optimizer.step()`.

    Args:
        name: one of SCHEDULES.
        optimizer: whose learning rates are the peaks.
        num_warmup_steps: optimizer updates of rising rate.
        num_training_steps: optimizer updates in all.
        scheduler_specific_kwargs: what this schedule alone has: `power` and `lr_end` of
            polynomial, `timescale` of inverse_sqrt.

    Raises:
        ConfigError: no schedule has that name, it needs a number that was not given, or has no
            such setting.
    """
    from torch.optim.lr_scheduler import LambdaLR

    if name not in SCHEDULES:
        raise ConfigError(f"no schedule is called {name!r}", expected=nearest(name, SCHEDULES))
    needed = {"num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    for argument, unneeded in zip(needed, (("constant",), ENDLESS), strict=True):
        if needed[argument] is None and name not in unneeded:
            raise ConfigError(f"the schedule {name!r} needs {argument}")
    factor, warmup, total = SCHEDULES[name], num_warmup_steps or 0, num_training_steps or 0
    known = [*inspect.signature(factor).parameters][3:]
    settings = dict(scheduler_specific_kwargs or {})
    for setting in settings:
        if setting not in known or setting == "lr":
            raise ConfigError(
                f"the schedule {name!r} has no setting {setting!r}",
                expected=", ".join(n for n in known if n != "lr") or "none",
            )
    if "lr" in known:
        settings["lr"] = optimizer.defaults["lr"]
        if not 0 <= settings.get("lr_end", 1e-7) < settings["lr"]:
            raise ConfigError("lr_end must be below the learning rate", got=settings["lr"])
    return LambdaLR(optimizer, lambda k: factor(k, warmup, total, **settings))


def get_linear_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int
) -> Any:
    """`get_scheduler("linear", ...)`, under the name that older scripts use."""
    return get_scheduler("linear", optimizer, num_warmup_steps, num_training_steps)
