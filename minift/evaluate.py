"""Metrics, and `evaluate.load(name)` to find one: no network, no code from elsewhere.

A metric is a function of two sequences, predictions and references, that returns numbers by name.
`Metric` describes those numbers: their range, and whether higher is better. All of them come from
plugins, through the hook `minift_register_metrics` (plugins/minift_glue has the usual ones).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minift.data.features import tensor_to_numpy
from minift.errors import ArgumentError, ConfigError, DataError, nearest
from minift.plugins import Manager, default_manager, registry

# Words in the names of numbers of which less is better, where no metric says it of the name.
LESS_IS_BETTER = {"loss", "error", "mse", "rmse", "mae", "perplexity", "brier", "ece"}
# {key: (numerators, denominators)}, each of shape (groups,), for metrics that score rows in groups.
GroupRatios = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ScoreInfo:
    """Description of one number that a metric returns.

    Attributes:
        low, high: its range.
        higher_is_better: False for errors and distances.
        is_proportion: it is the proportion of correct rows (or groups), a binomial proportion.
    """

    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    is_proportion: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric function together with a description of its results. Call it like the function.

    Attributes:
        compute: (predictions, references, **options) -> {key: float or array}.
        score_info: {key: ScoreInfo}; empty if unknown.
        group_ratios: only for metrics that score groups of rows as one, such as all answers to a
            question: takes the arguments of `compute` and returns the `GroupRatios` whose
            `ratio_of_sums` is the result. `minift compare` resamples these groups, else rows.
    """

    compute: Callable[..., dict[str, Any]]
    score_info: Mapping[str, ScoreInfo] = field(default_factory=dict)
    group_ratios: Callable[..., GroupRatios] | None = None

    def __call__(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        known = list(inspect.signature(self.compute).parameters)[2:]
        for name in set(options) - set(known):
            what = f"{getattr(self.compute, '__name__', 'this metric')} has no option {name!r}"
            raise ArgumentError(what, expected=nearest(name, known))
        return self.compute(predictions, references, **options)


def ratio_of_sums(group_ratios: GroupRatios) -> dict[str, float]:
    """Return {key: sum of numerators / sum of denominators}, where 0 / 0 is 0."""
    sums = {key: (top.sum(), bottom.sum()) for key, (top, bottom) in group_ratios.items()}
    return {key: float(top / bottom) if bottom else 0.0 for key, (top, bottom) in sums.items()}


def as_array(values: Any) -> np.ndarray:
    """Return tensors, arrays or lists as an array; one of objects for strings and dicts."""
    array = np.asarray(tensor_to_numpy(values))
    if array.dtype.kind == "U":  # numpy's strings of fixed width drop trailing NULs
        return np.asarray(values, dtype=object)
    return array


# --------------------------------------------------------------------------------- finding metrics


class EvaluationModule:
    """A metric to call at once, or to feed batch by batch with `add_batch` before `compute()`."""

    def __init__(self, name: str, metric: Metric) -> None:
        self.name, self.metric = name, metric
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, prediction: Any, reference: Any) -> None:
        """Add one row."""
        self.add_batch([prediction], [reference])

    def add_batch(self, predictions: Any, references: Any) -> None:
        """Add the rows of a batch: tensors, arrays or lists."""
        p, r = as_array(predictions), as_array(references)
        if p.ndim == 0 or p.shape[:1] != r.shape[:1]:  # else two errors could cancel out
            got = f"predictions of shape {p.shape}, references of shape {r.shape}"
            raise DataError(f"{self.name} needs a reference for each prediction", got=got)
        self._batches.append((p, r))

    def compute(
        self, predictions: Any = None, references: Any = None, **options: Any
    ) -> dict[str, Any]:
        """Return the metric of all rows that were added, these included, and forget them.

        Args:
            options: the metric's own, such as average="macro".
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions, references)
        if not self._batches:
            raise DataError(f"{self.name}: nothing was added to compute a metric from")
        p, r = map(np.concatenate, zip(*self._batches, strict=True))
        self._batches = []
        return self.metric(p, r, **options)


def all_metrics(manager: Manager | None = None) -> dict[str, Metric]:
    """Return the metrics of all plugins, by default those of this process, by name."""
    registered = registry(manager or default_manager(), "minift_register_metrics")
    metrics = {name: entry.value for name, entry in registered.items()}
    return {k: m if isinstance(m, Metric) else Metric(m) for k, m in metrics.items()}


def find_metric(name: str, manager: Manager | None = None) -> Metric:
    """Return the metric with this name, by default of the plugins of this process.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    metrics = all_metrics(manager)
    if name not in metrics:
        raise ConfigError(f"no metric is called {name!r}", expected=nearest(name, metrics))
    return metrics[name]


def higher_is_better(key: str, manager: Manager | None = None) -> bool:
    """Return whether higher is better for a number of this name, as its metric says.

    If no metric has it, or two disagree, words in the name decide.
    """
    infos = [m.score_info[key] for m in all_metrics(manager).values() if key in m.score_info]
    directions = {info.higher_is_better for info in infos}
    return directions.pop() if len(directions) == 1 else not set(key.split("_")) & LESS_IS_BETTER


def load(path: str, config_name: str | None = None) -> EvaluationModule:
    """Return a metric by name: `load("accuracy")`, `load("glue", "mrpc")`."""
    name = f"{path}/{config_name}" if config_name else path
    return EvaluationModule(name, find_metric(name))
