"""Learning-rate schedules: pure functions of the step, `factor(step) * learning_rate`.

With w warm-up steps of N in all: during warm-up every schedule rises as step / w. Step counts
optimizer updates from 0; update k uses factor(k).
"""

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


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "linear": linear,
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "cosine": cosine,
}


CONSTANT = ("constant", "constant_with_warmup")  # these do not ask how long training takes


def get_scheduler(
    name: str,
    optimizer: Any,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
) -> Any:
    """A torch scheduler: call `.step()` after each `optimizer.step()`.

    Raises:
        ConfigError: no schedule has that name, or it needs a number that was not given.
    """
    from torch.optim.lr_scheduler import LambdaLR

    if name not in SCHEDULES:
        raise ConfigError(f"no schedule is called {name!r}", expected=nearest(name, SCHEDULES))
    needed = {"num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    for argument, unneeded in zip(needed, (("constant",), CONSTANT), strict=True):
        if needed[argument] is None and name not in unneeded:
            raise ConfigError(f"the schedule {name!r} needs {argument}")
    factor, warmup, total = SCHEDULES[name], num_warmup_steps or 0, num_training_steps or 0
    return LambdaLR(optimizer, lambda k: factor(k, warmup, total))


def get_linear_schedule_with_warmup(
    optimizer: Any, num_warmup_steps: int, num_training_steps: int
) -> Any:
    """`get_scheduler("linear", ...)`, under the name that older scripts use."""
    return get_scheduler("linear", optimizer, num_warmup_steps, num_training_steps)
