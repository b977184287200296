"""Sums of losses over steps, kept on the device, and the loss with label smoothing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minift.device import Device
from minift.errors import ConfigError

LossFunction = Callable[[Any, dict[str, Any]], tuple[Any, Any]]  # (outputs, batch) -> (sum, count)


class LossTracker:
    """Losses summed since the last log record, and the latch that stops updates.

    Adding to it never waits for the device; `fetch` does.

    Attributes:
        skip_updates: a scalar on the device: 0, and 1 from the first step whose loss or gradient is
            not finite. It masks that step's update and all that follow.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        # Each record begins with these. New ones would be part of what some backends compile.
        self.zeros = self.scalar(0), self.scalar(0)
        self.loss, self.count = self.zeros
        self.grad_norm, self.step = self.scalar(0), self.scalar(0)
        self.skip_updates = self.scalar(0)
        self.bad_step = self.scalar(-1)
        self.total_loss, self.total_count = 0.0, 0.0  # of the records before

    def scalar(self, value: float) -> Tensor:
        return torch.full((), float(value), device=self.device.torch_device)

    def add(self, loss: Tensor, count: Tensor, grad_norm: Tensor) -> None:
        """Add one optimizer step: its summed loss, its count of items, its gradient's norm."""
        finite = torch.isfinite(loss)
        if self.device.scaler is None:  # else gradients overflow now and then: the step is skipped
            finite = finite & torch.isfinite(grad_norm)
        self.bad_step = torch.where((self.skip_updates == 0) & ~finite, self.step, self.bad_step)
        self.step = self.step + 1
        self.skip_updates = torch.maximum(self.skip_updates, (~finite).to(self.skip_updates.dtype))
        self.loss, self.count = self.loss + loss, self.count + count
        self.grad_norm = grad_norm

    def fetch(self, reset: bool = False) -> dict[str, float]:
        """Bring the sums to the host.

        Args:
            reset: start the sums of the next log record.

        Returns:
            "loss" per item and "grad_norm" of the last step; "bad_step": the first step that was
            not finite, or -1.
        """
        scalars = {"loss": self.loss, "count": self.count, "norm": self.grad_norm}
        sums = self.device.fetch({**scalars, "bad": self.bad_step})
        if reset:
            self.total_loss += sums["loss"]
            self.total_count += sums["count"]
            self.loss, self.count = self.zeros
        mean = sums["loss"] / (sums["count"] or 1)
        return {"loss": mean, "grad_norm": sums["norm"], "bad_step": sums["bad"]}

    def mean(self) -> float:
        """Return the loss per item over all steps so far."""
        sums = self.state_dict()
        count = sums["count"] + sums["total_count"]
        return (sums["loss"] + sums["total_loss"]) / (count or 1)

    def state_dict(self) -> dict[str, float]:
        """Return the sums for a checkpoint, so that the next log record is the same after it."""
        sums = self.device.fetch({"loss": self.loss, "count": self.count})
        return {**sums, "total_loss": self.total_loss, "total_count": self.total_count}

    def load_state_dict(self, sums: dict[str, float], step: int) -> None:
        self.loss, self.count = self.scalar(sums["loss"]), self.scalar(sums["count"])
        self.step = self.scalar(step)
        self.total_loss, self.total_count = sums["total_loss"], sums["total_count"]


def choose_loss(loss: LossFunction | None, label_smoothing: float) -> LossFunction | None:
    """Return the caller's loss, or the smoothed one; None: the model computes its own.

    Raises:
        ConfigError: both are asked for.
    """
    if loss is not None and label_smoothing:
        raise ConfigError("label_smoothing_factor is for the model's own loss, not loss=")
    return smoothed_loss(label_smoothing) if label_smoothing else loss


def smoothed_loss(smoothing: float) -> LossFunction:
    """Build the cross entropy with a share of the target spread evenly over all classes.

    (1 - s) * -log p_label + s * the mean over the classes of -log p; rows labelled -100 do not
    count (Szegedy et al. 2016, arXiv 1512.00567).
    """

    def loss(outputs: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        logits, labels = outputs.logits.float(), batch["labels"].view(-1)
        total = torch.nn.functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=smoothing
        )
        return total, (labels != -100).sum()

    return loss
