"""Sums of losses over steps, kept on the device, and the loss of a batch, whoever computes it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minift.device import Device
from minift.errors import ConfigError
from minift.models.pretrained import SequenceClassifierOutput

LossFunction = Callable[[Any, dict[str, Any]], tuple[Any, Any]]  # (outputs, batch) -> (sum, count)
OUTPUT_NAMES = tuple(SequenceClassifierOutput.__dataclass_fields__)


class LossTracker:
    """Losses summed since the last log record, and the flag that stops updates.

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


def smoothed_loss(smoothing: float) -> LossFunction:
    """Build the cross entropy with a share of the target spread evenly over all classes.

    (1 - s) * -log p_label + s * the mean over the classes of -log p; rows labelled -100 do not
    count (Szegedy et al. 2016, arXiv 1512.00567).
    """

    def loss(outputs: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        logits, labels = read_outputs(outputs).logits.float(), batch["labels"].view(-1)
        total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
        return total, (labels != -100).sum()

    return loss


# ------------------------------------------------------------------- outputs, whoever computes them


def read_outputs(outputs: Any) -> SequenceClassifierOutput:
    """Return a model's outputs as minift's own class, with None for what they do not have.

    Args:
        outputs: an object or a dict with the names of that class; a tuple that begins with the
            loss, a scalar, or with the logits; or the logits alone.
    """
    if isinstance(outputs, tuple | list | Tensor) and not hasattr(outputs, "_fields"):
        parts = [outputs] if isinstance(outputs, Tensor) else outputs
        parts = [part for part in parts if isinstance(part, Tensor)]
        names = ("logits",) if parts and parts[0].dim() else ("loss", "logits")
        outputs = dict(zip(names, parts, strict=False))
    if not isinstance(outputs, Mapping):
        outputs = {name: getattr(outputs, name, None) for name in OUTPUT_NAMES}
    return SequenceClassifierOutput(*(outputs.get(name) for name in OUTPUT_NAMES))


def model_loss(outputs: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Return the loss that a model computed, as a sum over items and their number.

    Raises:
        ConfigError: it gives none; or `loss` is another one than `loss_sum`.
    """
    found = read_outputs(outputs)
    loss, loss_sum, num_items = found.loss, found.loss_sum, found.num_items
    if loss_sum is None or num_items is None:
        return sum_of_mean(loss, batch)
    if isinstance(loss, Tensor) and loss.is_cpu:  # where reading it is free
        mean = (loss_sum / num_items).to(loss.dtype)
        if not torch.isclose(loss, mean, rtol=0.01, equal_nan=True):
            what, do = "outputs.loss is not the mean of outputs.loss_sum", "return one of the two"
            raise ConfigError(what, got=loss.item(), expected=mean.item(), do=do)
    return loss_sum, num_items


def sum_of_mean(loss: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Turn a loss that is the mean over a batch into a sum, so that losses of batches add up.

    The mean of several batches is then that of all their items; a batch without any adds nothing.

    Raises:
        ConfigError: it is not one number.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        do = "return it from forward(..., labels), or pass loss= to the Trainer"
        raise ConfigError("there is no loss to train by", got=got, expected="one number", do=do)
    num_items = count_items(batch)
    return torch.where(num_items > 0, loss.float().reshape(()) * num_items, 0.0), num_items


def mean_loss(
    compute_loss: Callable[..., Any], model: Any, batch: dict[str, Any], return_outputs: bool
) -> tuple[Any, Any, Any]:
    """Call a `compute_loss` of a Trainer's subclass, which returns the mean over the batch.

    Its `num_items_in_batch` are the items of this batch alone: a sum that it divides by them is
    such a mean too, and both have the same weight among the batches of an update.

    Returns:
        The sum of the losses, the number of items, and the outputs, if it returns them.
    """
    number = count_items(batch).clamp(min=1)
    options = {"return_outputs": return_outputs, "num_items_in_batch": number}
    names = argument_names(compute_loss)
    options = {k: v for k, v in options.items() if names is None or k in names}
    result = compute_loss(model, dict(batch), **options)
    loss, outputs = result if isinstance(result, tuple) else (result, None)
    return *sum_of_mean(loss, batch), outputs


def argument_names(function: Callable[..., Any]) -> set[str] | None:
    """Return the names of a function's arguments; None if it takes any (**kwargs)."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return None if takes_any else set(parameters)


def count_items(batch: dict[str, Any]) -> Tensor:
    """Return how many labels of a batch are not -100, a scalar; without labels, its rows."""
    if (labels := batch.get("labels")) is None:
        example = next(value for value in batch.values() if isinstance(value, Tensor))
        labels = example.new_zeros(len(example))
    items = labels != -100
    if "example_mask" in batch:  # rows that a device added do not count
        items = items & (batch["example_mask"].view(-1, *[1] * (items.dim() - 1)) > 0)
    return items.sum()
