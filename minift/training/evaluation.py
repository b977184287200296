"""The evaluation loop: every row once, from long to short, results in the dataset's order.

Each batch's logits go to the host at once as fp32 and are written to the rows that they belong to,
so the order of computing does not show and nothing piles up on the device. Nothing random is
drawn, so evaluating does not change training.
"""

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from minift.data.dataset import Dataset
from minift.data.ragged import is_flat
from minift.errors import ArgumentError, ConfigError, DataError, MiniftError
from minift.evaluate import find_metric, higher_is_better
from minift.plugins import Manager, default_manager
from minift.training import batches
from minift.training.compatibility import to_plain
from minift.training.losses import read_outputs
from minift.training.run import Run

MISTAKES = (AttributeError, ImportError, NameError, TypeError, MiniftError)


@dataclass
class EvalPrediction:
    """The argument of `compute_metrics`; it unpacks as `logits, labels = prediction`.

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


class EvalLoopOutput(NamedTuple):
    """The result of `evaluate` and `predict`: logits, labels, metrics, in the dataset's order."""

    predictions: np.ndarray
    label_ids: np.ndarray | None
    metrics: dict[str, float]

    @property
    def num_samples(self) -> int:
        return len(self.predictions)


def evaluate(
    run: Run, loader: DataLoader, prefix: str = "eval", precision: str | None = None
) -> EvalLoopOutput:
    """Compute loss, logits and metrics of the model on the rows of a loader, in its order.

    Args:
        run: holds the model, the device and `compute_metrics`.
        loader: over a dataset with the model's columns; labels are optional.
        prefix: of the names of the metrics.
        precision: instead of the run's.
    """
    prediction, metrics, speeds = predict(run, loader, precision)
    if run.compute_metrics is not None and prediction.label_ids is not None:
        metrics |= loggable(run.compute_metrics(prediction))
    metrics |= speeds
    named = {k if k.startswith(f"{prefix}_") else f"{prefix}_{k}": v for k, v in metrics.items()}
    return EvalLoopOutput(prediction.predictions, prediction.label_ids, named)


def predict(
    run: Run, loader: DataLoader, precision: str | None = None
) -> tuple[EvalPrediction, dict[str, float], dict[str, float]]:
    """Return logits and labels, the mean loss if there are labels, and the time it took."""
    dataset, collate = batches.read_loader(run, loader)
    order = np.concatenate(batches.ask_loader(run, loader, 0))
    if not np.array_equal(order, np.arange(len(dataset))):
        dataset = dataset.select(order)
    started, n, device = time.perf_counter(), len(dataset), run.device
    was_training = run.model.training
    run.model.eval()
    size = run.args.per_device_eval_batch_size
    plan = batches.split_into_batches(longest_first(dataset), size)
    shared = len(plan) >= device.world_size > 1  # of fewer batches, each rank computes all
    share = plan[device.rank :: device.world_size] if shared else plan
    blocks: dict[str, np.ndarray] = {}  # of logits and labels, for all rows
    loss_sum, num_items = 0.0, 0.0
    with torch.no_grad(), device.autocast(precision or run.precision):
        computed = batches.device_batches(run, dataset, collate, share, size)
        for rows, batch in zip(share, computed, strict=True):
            if "labels" in batch:
                write_rows(blocks, "labels", batch["labels"], rows, n)
                loss, count, outputs = run.compute_loss(batch, return_outputs=True)
                loss_sum, num_items = loss_sum + float(loss), num_items + float(count)
            else:
                outputs = run.forward(batch)
            found = read_outputs(outputs).logits
            if not isinstance(found, torch.Tensor):
                got = type(outputs).__name__
                raise ConfigError("the model's outputs have no logits", got=got)
            write_rows(blocks, "logits", found.float(), rows, n)
    if shared:  # rows of other ranks are 0 here
        blocks["sums"] = np.array([loss_sum, num_items])
        tensors = {name: torch.from_numpy(block) for name, block in blocks.items()}
        blocks = {name: device.all_reduce(tensor).numpy() for name, tensor in tensors.items()}
        loss_sum, num_items = blocks.pop("sums")
    run.model.train(was_training)
    seconds = time.perf_counter() - started
    loss_mean = {"loss": loss_sum / num_items} if num_items else {}
    prediction = EvalPrediction(blocks["logits"], blocks.get("labels"), dataset)
    return prediction, loss_mean, speed_metrics(seconds, n, len(plan))


def speed_metrics(seconds: float, rows: float, steps: int) -> dict[str, float]:
    """Return the time that rows and steps took, in seconds, and how many there were a second."""
    speeds = {"samples_per_second": rows / seconds, "steps_per_second": steps / seconds}
    return {"runtime": round(seconds, 4), **{name: round(v, 3) for name, v in speeds.items()}}


def loggable(returned: Any) -> dict[str, Any]:
    """Return what `compute_metrics` returned, with its numbers as Python's.

    Raises:
        ArgumentError: it is no dict of something that JSON has, by name.
    """
    try:
        if not isinstance(returned, Mapping) or not all(isinstance(name, str) for name in returned):
            raise TypeError("no dict with names that are text")
        json.dumps(metrics := to_plain(returned))
        return metrics
    except (TypeError, ValueError) as error:
        what, got = "compute_metrics must return a dict", f"{returned!r:.80}: {error}"
        raise ArgumentError(what, got=got, expected="{'accuracy': 0.9}, for example") from None


def try_metrics(run: Run, loader: Callable[[Dataset], DataLoader]) -> None:
    """Call `compute_metrics` once on two rows, before training, for the sake of what it returns.

    What rather is a mistake (of a name, an attribute, a type, an import; what cannot be logged;
    minift's own errors) is raised. Another exception may only mean that it needs more rows, or more
    classes than two rows have: it is said in a line, and training goes on. What is called is a
    copy, so that a state which it keeps is not changed.
    """
    args, dataset = run.args, run.eval_dataset
    if not run.compute_metrics or not (args.eval_strategy != "no" or args.eval_on_start):
        return
    assert dataset is not None
    prediction, *_ = predict(run, loader(dataset.select(range(min(2, len(dataset))))))
    shared = (run.model, run.processing_class, run.train_dataset, dataset)
    compute_metrics = detached(run.compute_metrics, {id(one): one for one in shared})
    try:
        if prediction.label_ids is not None:
            loggable(compute_metrics(prediction))
    except MISTAKES:
        raise
    except Exception as error:
        what = f"compute_metrics raised {type(error).__name__} ({error}) on two rows, tried"
        run.log_message(f"{what} before training. If it needs more, nothing is wrong")


def detached(function: Any, shared: dict[int, Any]) -> Any:
    """Copy a callable with its state, so that calling the copy leaves no trace.

    The state of a function is what it closes over, and the global names that it uses. What cannot
    be copied (a module, an open file, a lock) is shared, as are the objects in `shared`, by id.
    """

    def copied(value: Any) -> Any:
        with contextlib.suppress(Exception):
            return copy.deepcopy(value, shared)
        return value

    if not isinstance(function, FunctionType):
        return copied(function)
    code, names = function.__code__, function.__globals__
    names = names | {name: copied(names[name]) for name in code.co_names if name in names}
    cells = tuple(CellType(copied(cell.cell_contents)) for cell in function.__closure__ or ())
    twin = FunctionType(code, names, function.__name__, function.__defaults__, cells)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def longest_first(dataset: Dataset) -> np.ndarray:
    """Return the row numbers from long to short, so that little is padded; int64 of shape (rows,).

    Rows without tokens, or with several sequences each, stay in order.
    """
    if "input_ids" in dataset.features and is_flat(dataset.data.schema.field("input_ids").type):
        return np.argsort(-dataset.lengths("input_ids"), kind="stable")
    return np.arange(len(dataset))


def write_rows(
    blocks: dict[str, np.ndarray], name: str, values: Any, rows: np.ndarray, n: int
) -> None:
    """Write a batch's values into a block of `n` rows, which the first batch allocates."""
    host = values.cpu().numpy()[: len(rows)]  # a device may have added rows to the batch
    if name not in blocks:
        blocks[name] = np.zeros((n, *host.shape[1:]), host.dtype)
    blocks[name][rows] = host


def to_predictions(prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray]:
    """Convert logits to what metrics compare with the labels; rows labelled -100 are left out.

    Returns:
        The most likely class of each row, or with one output the number itself; and the label. With
        several labels a row, 0 or 1 for each: both of shape (rows, num_labels).
    """
    logits, labels = prediction
    if labels.shape == logits.shape and logits.shape[-1] > 1:
        if not np.isin(labels, (0, 1)).all():
            raise DataError("several numbers a row have no metric by name", do="pass a function")
        return (logits > 0).astype(np.int64), labels.astype(np.int64)
    labels = labels.reshape(len(labels))
    chosen = logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)
    return chosen[labels != -100], labels[labels != -100]


def right_answers(config: Any) -> EvalPrediction:
    """Return right logits of a row for each class or label of a model, to try a metric on."""
    n, kind = config.num_labels, config.problem_type
    right = np.eye(max(n, 2))[:, :n] / (2 if kind == "regression" and n > 1 else 1)
    classes = n > 1 and kind in (None, "single_label_classification")
    return EvalPrediction(right - 0.25, np.arange(n) if classes else right)


def named_metrics(
    names: str | Sequence[str], to_metric_inputs: Callable[[EvalPrediction], Any] = to_predictions,
    config: Any = None, manager: Manager | None = None,
) -> Callable[[EvalPrediction], dict[str, float]]:  # fmt: skip
    """Build a `compute_metrics` from names of metrics.

    Args:
        names: of one metric or several, "glue/mrpc" for example.
        to_metric_inputs: an `EvalPrediction` to the metrics' (predictions, references).
        config: of a model, for whose kind of answers they are tried at once.
        manager: has the plugins that give the metrics; by default those of this process.
    """
    metrics = [find_metric(n, manager) for n in ([names] if isinstance(names, str) else names)]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        results: dict[str, float] = {}
        for metric in metrics:
            results |= metric(*to_metric_inputs(prediction))
        return results

    if hasattr(config, "num_labels"):
        compute_metrics(right_answers(config))
    return compute_metrics


def best_metric_of(args: Any, manager: Manager | None = None) -> tuple[str, bool]:
    """Return the name of the metric that decides which model is best, and if more is better."""
    key = (args.metric_for_best_model or "loss").removeprefix("eval_")
    greater = args.greater_is_better
    return f"eval_{key}", higher_is_better(key, manager) if greater is None else greater


def check_decisions(run: Run) -> None:
    """Refuse what decides by evaluations, a callback or an argument, where there will be none.

    Raises:
        ConfigError: nothing would ever ask it, or there are no rows to evaluate.
    """
    args, unit = run.args, batches.steps_per_epoch(run) if run.args.eval_strategy == "epoch" else 1
    if (args.eval_strategy != "no" or args.eval_on_start) and not len(run.eval_dataset or ()):
        what, got = "evaluating in training needs an eval_dataset with rows", args.eval_strategy
        raise ConfigError(what, got=f"eval_strategy={got}", do="pass eval_dataset=")
    plugins = [impl.plugin for impl in run.manager.hook.minift_should_stop.get_hookimpls()]
    asked = [type(one).__name__ for one in plugins if not default_manager().is_registered(one)]
    best = ("metric_for_best_model", "greater_is_better")
    asked += [name for name in best if getattr(args, name) is not None]
    never = args.eval_strategy == "no" or run.state.max_steps / unit < args.eval_delay
    if asked and never:
        got = f"eval_strategy={args.eval_strategy!r}, eval_delay={args.eval_delay}"
        what = f"{asked[0]} looks at evaluations, and this run has none"
        raise ConfigError(what, got=got, do="choose eval_strategy and eval_delay, or leave it out")
