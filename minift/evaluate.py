"""Metrics, and `evaluate.load(name)` to find them: no network, no code from elsewhere.

A metric is a function of two sequences, predictions and references, that returns a dict of floats.
Those of known tasks come from plugins (`glue/mrpc`), through the hook `minift_metrics`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minift.errors import ConfigError, DataError, nearest
from minift.plugins import default_manager, registry

Metric = Callable[[Any, Any], dict[str, float]]


def accuracy(predictions: Any, references: Any) -> dict[str, float]:
    """The share of predictions that are right; nan if there are none."""
    p, r = paired(predictions, references)
    return {"accuracy": float(np.mean(p == r)) if len(p) else float("nan")}


def f1(predictions: Any, references: Any) -> dict[str, float]:
    """F1 of class 1: harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); 0 if no TP."""
    p, r = paired(predictions, references)
    others = set(np.unique(np.concatenate([p, r]))) - {0, 1}
    if others:
        raise DataError("binary F1 is of classes 0 and 1", got=sorted(o.item() for o in others))
    hits = float(np.sum((p == 1) & (r == 1)))
    marked = float(np.sum(p == 1) + np.sum(r == 1))
    return {"f1": 2 * hits / marked if hits else 0.0}


METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1": f1}


def paired(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    p, r = np.asarray(predictions), np.asarray(references)
    if p.shape != r.shape or p.ndim != 1:
        raise DataError(
            "predictions and references must be two equally long sequences of class numbers",
            got=f"shapes {p.shape} and {r.shape}",
            do="for logits: predictions = logits.argmax(-1)",
        )
    return p, r


class EvaluationModule:
    """What `load` returns: `compute` at once, or `add_batch` along the way and then `compute`."""

    def __init__(self, name: str, metric: Metric) -> None:
        self.name, self.metric = name, metric
        self._predictions: list[Any] = []
        self._references: list[Any] = []

    def add(self, prediction: Any, reference: Any) -> None:
        """One row."""
        self.add_batch([prediction], [reference])

    def add_batch(self, predictions: Any, references: Any) -> None:
        """The rows of one batch: tensors, arrays or lists."""
        p, r = as_array(predictions), as_array(references)
        if p.ndim == 0 or p.shape[:1] != r.shape[:1]:  # else two wrong batches could add up to fit
            raise DataError(
                f"{self.name} needs a reference for each prediction",
                got=f"predictions of shape {p.shape}, references of shape {r.shape}",
            )
        self._predictions.append(p)
        self._references.append(r)

    def compute(self, predictions: Any = None, references: Any = None) -> dict[str, float]:
        """The metric of what was added and given; then forget it."""
        if predictions is not None or references is not None:
            self.add_batch(predictions, references)
        if not self._predictions:
            raise DataError(f"{self.name}: nothing was added to compute a metric from")
        p, r = np.concatenate(self._predictions), np.concatenate(self._references)
        self._predictions, self._references = [], []
        return self.metric(p, r)

    def __repr__(self) -> str:
        return f"EvaluationModule({self.name!r})"


def as_array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, on whatever device
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def find_metric(name: str) -> Metric:
    """A metric by name: of this file, or of a plugin.

    Raises:
        ConfigError: there is none of that name; names the nearest.
    """
    known = {**METRICS}
    for key, found in registry(default_manager(), "minift_metrics").items():
        known[key] = found.value
    if name not in known:
        raise ConfigError(f"no metric is called {name!r}", expected=nearest(name, known))
    return known[name]


def load(path: str, config_name: str | None = None) -> EvaluationModule:
    """`load("accuracy")`, `load("glue", "mrpc")`."""
    name = f"{path}/{config_name}" if config_name else path
    return EvaluationModule(name, find_metric(name))
