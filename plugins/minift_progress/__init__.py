"""Show a run as it trains: a bar on a terminal, else a line for each record. It only observes."""

import sys
from typing import Any

from minift import hookimpl

SHOWN = ("loss", "grad_norm", "learning_rate")  # of a training record, in a line


class Progress:
    """The observer; between two runs it holds nothing."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None

    @hookimpl
    def minift_on_train_begin(self, run: Any) -> None:
        if sys.stderr.isatty() and not run.args.disable_tqdm and run.device.rank == 0:
            from rich import progress
            from rich.console import Console

            columns = (progress.BarColumn(), progress.MofNCompleteColumn())
            left = (progress.TimeRemainingColumn(), "{task.description}")
            self.bar = progress.Progress(*columns, *left, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=run.state.max_steps)
            self.bar.start()

    @hookimpl
    def minift_on_step_end(self, run: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=run.state.global_step)

    @hookimpl
    def minift_on_log(self, run: Any, record: dict[str, Any]) -> None:
        text = line(run, record)
        if self.bar is None:
            run.log_message(text)
        elif "loss" in record:
            self.bar.update(self.task, description=f"loss {record['loss']:.4f}")
        else:
            self.bar.console.print(text, highlight=False)

    @hookimpl
    def minift_on_save(self, run: Any, path: Any) -> None:
        if self.bar is None:
            run.log_message(f"saved {path}")
        else:
            self.bar.console.print(f"saved {path}", highlight=False)

    @hookimpl
    def minift_on_train_end(self, run: Any) -> None:
        self.stop()

    @hookimpl
    def minift_on_exception(self, run: Any, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def line(run: Any, record: dict[str, Any]) -> str:
    """Return a record as one line: `step 20/618  epoch 0.10  loss 0.6931  ...`"""
    head = f"step {record['step']}/{run.state.max_steps}  epoch {record['epoch']:.2f}"
    names = SHOWN if "loss" in record else [n for n in record if n not in ("step", "epoch")]
    return "  ".join(
        [head, *(f"{name} {in_short(record[name])}" for name in names if name in record)]
    )


def in_short(value: Any) -> str:
    """Return a number with four digits; what a metric has beside numbers as it is."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


progress = Progress()  # the plugin
