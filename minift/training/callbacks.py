"""Callbacks: plugins for one run, passed as `Trainer(callbacks=[...])`.

Each is an object with methods marked `@hookimpl`, as any plugin. What a callback needs for a
decision it reads from `run.state.log_history`, which survives an interruption.
"""

import math
import sys
from typing import Any

from minift.hookspecs import hookimpl

SHOWN = ("loss", "grad_norm", "learning_rate")  # of a training record, in a line


class ProgressCallback:
    """A bar on a terminal, a line a record elsewhere."""

    def __init__(self, bar: bool | None = None) -> None:
        self.bar_wanted = sys.stderr.isatty() if bar is None else bar
        self.bar: Any = None
        self.task: Any = None

    @hookimpl
    def minift_run_start(self, run: Any) -> None:
        if self.bar_wanted and run.device.rank == 0:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                "{task.description}",
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=run.state.max_steps)
            self.bar.start()

    @hookimpl
    def minift_step_end(self, run: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=run.state.global_step)

    @hookimpl
    def minift_log(self, run: Any, record: dict[str, Any]) -> None:
        text = line(run, record)
        if self.bar is None:
            run.say(text)
        elif "loss" in record:
            self.bar.update(self.task, description=f"loss {record['loss']:.4f}")
        else:
            self.bar.console.print(text, highlight=False)

    @hookimpl
    def minift_run_end(self, run: Any) -> None:
        self.stop()

    @hookimpl
    def minift_run_failed(self, run: Any, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def line(run: Any, record: dict[str, Any]) -> str:
    """A record as one line: `step 20/618  epoch 0.10  loss 0.6931  ...`"""
    head = f"step {record['step']}/{run.state.max_steps}  epoch {record['epoch']:.2f}"
    names = SHOWN if "loss" in record else [n for n in record if n not in ("step", "epoch")]
    return "  ".join([head, *(f"{name} {record[name]:.4g}" for name in names if name in record)])


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
        name, greater = best_metric_of(run.args)
        values = [record[name] for record in run.state.log_history if name in record]
        best, waited = None, 0
        for value in values:
            if math.isnan(value):  # never the best
                waited += 1
                continue
            better = best is None or (value - best if greater else best - value) > self.threshold
            best, waited = (value, 0) if better else (best, waited + 1)
        if waited < max(self.patience, 1):
            return None
        return f"{name} has not improved on {best} for {waited} evaluation(s)"


def best_metric_of(args: Any) -> tuple[str, bool]:
    """The name of the metric that decides which model is best, and whether more is better."""
    name = args.metric_for_best_model or "loss"
    greater = args.greater_is_better
    name = name if name.startswith("eval_") else f"eval_{name}"
    return name, not name.endswith("loss") if greater is None else greater
