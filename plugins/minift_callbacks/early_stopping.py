"""`EarlyStoppingCallback`: a plugin for one run, passed as `Trainer(callbacks=[...])`.

What a callback needs for a decision it reads from `run.state`, which survives an interruption.
"""

import math
from typing import Any

from minift import hookimpl
from minift.training.evaluation import best_metric_of


class EarlyStoppingCallback:
    """Stop when the best metric has not improved for `early_stopping_patience` evaluations.

    Args:
        early_stopping_patience: evaluations without improvement that end the run.
        early_stopping_threshold: how much better counts as better.
    """

    def __init__(
        self, early_stopping_patience: int = 1, early_stopping_threshold: float = 0.0
    ) -> None:
        self.patience, self.threshold = early_stopping_patience, early_stopping_threshold

    @hookimpl
    def minift_should_stop(self, run: Any) -> str | None:
        name, greater = best_metric_of(run.args, getattr(run, "manager", None))
        best, waited = None, 0
        for value in run.state.metric_history:
            gain = None if best is None else (value - best if greater else best - value)
            better = gain is None or gain > self.threshold  # NaN is never better
            waited = 0 if better and not math.isnan(value) else waited + 1
            if not math.isnan(value) and (gain is None or gain > 0):
                best = value
        if waited < max(self.patience, 1):
            return None
        if best is None:
            return f"{name} was not a number in {waited} evaluation(s)"
        more = f" by more than {self.threshold}" if self.threshold else ""
        return f"{name} has not improved{more} for {waited} evaluation(s); its best is {best}"
