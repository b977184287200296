"""The evaluation loop: every row once, sorted by length, put back by row number.

Each batch's logits go to the host at once as fp32 and are written to the rows that they belong to,
so the order of computing does not show and nothing piles up on the device. Nothing random is
drawn, so evaluating does not change training.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from minift.data.dataset import Dataset
from minift.data.ragged import is_flat
from minift.evaluate import Metric, find_metric
from minift.training.batches import split_into_batches
from minift.training.run import Run, plain


@dataclass
class EvalPrediction:
    """What `compute_metrics` gets; it unpacks as `logits, labels = prediction`.

    Attributes:
        predictions: logits, fp32 of shape (rows, num_labels), in the dataset's order.
        label_ids: labels, of shape (rows,), or None.
        rows: the dataset that was evaluated, in the same order; a Trainer keeps the columns that
            feed the model.
    """

    predictions: np.ndarray
    label_ids: np.ndarray | None
    rows: Dataset | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.predictions, self.label_ids))

    def __getitem__(self, key: int) -> Any:
        return (self.predictions, self.label_ids)[key]


@dataclass
class EvalLoopOutput:
    """The result of `evaluate` and `predict`: logits, labels, metrics, in the dataset's order."""

    predictions: np.ndarray
    label_ids: np.ndarray | None
    metrics: dict[str, float]
    num_samples: int

    def __iter__(self) -> Iterator[Any]:
        return iter((self.predictions, self.label_ids, self.metrics))

    def __getitem__(self, key: int) -> Any:
        return (self.predictions, self.label_ids, self.metrics)[key]


def evaluate(
    run: Run, dataset: Dataset, prefix: str = "eval", precision: str | None = None
) -> EvalLoopOutput:
    """Loss, logits and metrics of the model on a dataset.

    Args:
        run: holds the model, the device, the collator and `compute_metrics`.
        dataset: with the model's columns; labels are optional.
        prefix: of the names of the metrics.
        precision: instead of the run's.
    """
    started = time.perf_counter()
    was_training = run.model.training
    run.model.eval()
    order = np.arange(len(dataset))
    if "input_ids" in dataset.features and is_flat(dataset.data.schema.field("input_ids").type):
        order = np.argsort(-dataset.lengths("input_ids"), kind="stable")
    size = run.args.per_device_eval_batch_size
    plan = split_into_batches(order, size)
    ranks = run.device.world_size if len(plan) >= run.device.world_size else 1
    own = plan[run.device.rank :: ranks] if ranks > 1 else plan  # few batches: each computes all
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    total, count = 0.0, 0.0
    with torch.no_grad(), run.device.autocast(precision or run.precision):
        for rows, batch in zip(own, run.batches(dataset, own, size), strict=True):
            outputs = run.forward(batch)
            logits = put(logits, outputs.logits.float(), rows, len(dataset))
            if "labels" in batch:
                labels = put(labels, batch["labels"], rows, len(dataset))
                loss_sum, items = loss_of(run, outputs, batch)
                total, count = total + float(loss_sum), count + float(items)
    if ranks > 1:  # where a rank has written nothing there are zeros
        total, count = add_up(run, np.array([total, count]))
        logits, labels = (
            None if block is None else add_up(run, block) for block in (logits, labels)
        )
    run.model.train(was_training)
    seconds = time.perf_counter() - started
    metrics: dict[str, float] = {"loss": total / count} if count else {}
    if logits is None:
        logits = np.zeros((0, 0), np.float32)
    if run.compute_metrics is not None and labels is not None:
        metrics |= run.compute_metrics(EvalPrediction(logits, labels, dataset))
    metrics |= {
        "runtime": round(seconds, 4),
        "samples_per_second": round(len(dataset) / seconds, 3),
        "steps_per_second": round(len(plan) / seconds, 3),
    }
    named = {k if k.startswith(f"{prefix}_") else f"{prefix}_{k}": v for k, v in metrics.items()}
    return EvalLoopOutput(logits, labels, named, len(dataset))


def loss_of(run: Run, outputs: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """(sum of losses, items) of a batch, from the run's loss function or from the model."""
    if run.loss is not None:
        return run.loss(outputs, batch)
    return outputs.loss_sum, outputs.num_items


def put(block: np.ndarray | None, values: Any, rows: np.ndarray, n: int) -> np.ndarray:
    """Write a batch's values to the rows they belong to; the first batch says the shape."""
    host = values.cpu().numpy()[: len(rows)]  # a device may have filled the batch up
    if block is None:
        block = np.zeros((n, *host.shape[1:]), host.dtype)
    block[rows] = host
    return block


def add_up(run: Run, block: np.ndarray) -> np.ndarray:
    """The sum over all ranks, on each of them."""
    return run.device.all_reduce(torch.from_numpy(block)).numpy()


def answers(prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray]:
    """What metrics compare: the most likely class, or with one output the number itself; the label.

    Rows labelled -100 have no part in it.
    """
    logits, labels = prediction
    chosen = logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)
    return chosen[labels != -100], labels[labels != -100]


@dataclass
class NamedMetrics:
    """`compute_metrics` from metrics, and from what gives them predictions and references."""

    metrics: Sequence[Metric]
    answers: Callable[[EvalPrediction], Any] = answers

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        results: dict[str, float] = {}
        for metric in self.metrics:
            results |= metric(*self.answers(prediction))
        return results


def named_metrics(
    names: Sequence[str], answers: Callable[[EvalPrediction], Any] = answers
) -> NamedMetrics:
    return NamedMetrics([find_metric(name) for name in names], answers)


def scores_of(run: Run, result: EvalLoopOutput, prefix: str) -> dict[str, Any]:
    """What run.json keeps of an evaluation on the run's own rows, after this many steps."""
    values = {k.removeprefix(f"{prefix}_"): v for k, v in result.metrics.items()}
    times = ("runtime", "samples_per_second", "steps_per_second")
    said: dict[str, Any] = {"step": run.state.global_step, "rows": result.num_samples}
    said["values"] = {k: plain(v) for k, v in values.items() if k not in times}
    return said
