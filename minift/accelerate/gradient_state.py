"""Progress of a hand-written loop: shared by what `Accelerator.prepare` returns.

The loaders write which batch the loop has, `accumulate` which micro-batch of an update that is, and
the optimizers how many items their gradients are a sum over.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class GradientSum:
    """The gradients of one optimizer since its last step, which are sums, and its steps.

    Attributes:
        count: how many items the gradients are a sum over; None: there are no gradients.
        batch_number: the batch that was counted last.
        is_mean: the sums have been divided by the count already.
        updates: steps so far; `applied_updates`: without those that fp16 left out.
    """

    count: Any = None
    batch_number: int = 0
    is_mean: bool = False
    updates: int = 0
    applied_updates: int = 0

    def clear(self) -> None:
        self.count, self.batch_number, self.is_mean = None, 0, False

    def add(self, count: Any, batch_number: int, several_losses: bool) -> None:
        """Count the items of a backward pass; with several losses of one batch, only once."""
        if self.count is None:
            self.count = count
        elif not (several_losses and self.batch_number == batch_number):
            self.count = self.count + count
        self.batch_number = batch_number


@dataclass
class GradientState:
    """Which batch, which micro-batch of an update, and which update the loop is at.

    Attributes:
        gradient_accumulation_steps: micro-batches in an update.
        seed: of the random streams.
        sync_gradients: the current micro-batch ends its update.
        micro_batches: micro-batches of the current update so far, with `accumulate`.
        batch_number: batches that prepared loaders have given so far.
        batch_rows: rows of the current batch; 0 if they are another process's.
        end_of_loader: the current batch is the last one of its loader.
        sums: of each prepared optimizer.
    """

    gradient_accumulation_steps: int = 1
    seed: int = 0
    sync_gradients: bool = True
    micro_batches: int = 0
    batch_number: int = 0
    batch_rows: int = 0
    end_of_loader: bool = False
    sums: list[GradientSum] = field(default_factory=list)

    def start_batch(self, rows: int, end_of_loader: bool) -> None:
        self.batch_number += 1
        self.batch_rows, self.end_of_loader = rows, end_of_loader

    def start_micro_batch(self) -> None:
        self.micro_batches += 1
        full = self.micro_batches == self.gradient_accumulation_steps
        self.sync_gradients = full or self.end_of_loader

    def end_micro_batch(self) -> None:
        if self.sync_gradients:
            self.micro_batches = 0

    @property
    def accumulating(self) -> bool:
        """True between the first micro-batch of an update of several and its end."""
        return self.micro_batches > 1 or not self.sync_gradients

    @property
    def has_gradients(self) -> bool:
        """True if every optimizer has gradients that wait for its step."""
        return bool(self.sums) and all(one.count is not None for one in self.sums)

    @property
    def updates(self) -> int:
        return max((one.updates for one in self.sums), default=0)
