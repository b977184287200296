"""Metrics, and `evaluate.load(name)` to find them: no network, no code from elsewhere.

A metric takes two sequences, predictions and references, and gives numbers by name. `Metric` says
beside it what each number means: its range, whether more is better, and what its interval is made
from. Those of known tasks (`glue/mrpc`) come from plugins, through the hook
`minift_register_metrics`.

Everything is computed in float64. A number that is not defined is what scikit-learn and scipy give
for it (0.0 or nan), with a warning that says why; only no rows at all are nan here, an error there.
"""

import inspect
import math
import string
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from minift.errors import ArgumentError, ConfigError, DataError, nearest
from minift.plugins import default_manager, registry
from minift.rng import derive

AVERAGES = ("binary", "micro", "macro", "weighted", None)
RESAMPLES = 1000  # of a bootstrap
# Sums over units (rows, or the groups that a metric scores as one): {key: (over, under)}, arrays
# of shape (units,). The key's value is the sum of the one by the sum of the other.
Parts = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Score:
    """What one number of a metric means.

    Attributes:
        low, high: its range.
        higher_is_better: False for errors.
        share: it is the share of units that are right, so that Wilson's interval fits.
    """

    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    share: bool = False


@dataclass(frozen=True)
class Metric:
    """A function that measures, and what its numbers mean; call it as the function.

    Attributes:
        compute: (predictions, references, **options) -> {key: float, or an array}.
        scores: {key: Score}; empty where that is not known.
        parts: for a metric that scores rows by groups, the same arguments -> `Parts`. A bootstrap
            draws these groups as wholes; without it, it draws rows.
    """

    compute: Callable[..., dict[str, Any]]
    scores: Mapping[str, Score] = field(default_factory=dict)
    parts: Callable[..., Parts] | None = None

    def __call__(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        known = list(inspect.signature(self.compute).parameters)[2:]
        for name in set(options) - set(known):
            what = f"{getattr(self.compute, '__name__', 'this metric')} has no option {name!r}"
            raise ArgumentError(what, expected=nearest(name, known))
        return self.compute(predictions, references, **options)


# ----------------------------------------------------------------------------------- what goes in


def as_array(values: Any) -> np.ndarray:
    """Tensors, arrays and lists as arrays; strings and dicts as arrays of objects."""
    if hasattr(values, "detach"):  # a tensor, on whatever device
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    array = np.asarray(values)
    if array.dtype.kind == "U":  # numpy's own strings lose zeros at the end
        return np.asarray(values, dtype=object)
    return array


def paired(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of one equal length."""
    p, r = as_array(predictions), as_array(references)
    if p.shape != r.shape or p.ndim != 1:
        what = "predictions and references must be two equally long sequences"
        do = "for logits: predictions = logits.argmax(-1), or logits[:, 0] if they are numbers"
        raise DataError(what, got=f"shapes {p.shape} and {r.shape}", do=do)
    return p, r


def classes(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of classes: whole numbers, or strings."""
    p, r = paired(predictions, references)
    for values in (p, r):
        if values.dtype.kind == "f" and (wrong := values[values % 1 != 0]).size:
            raise DataError("class numbers are whole numbers", got=wrong[0])
    if len(p) and (p.dtype == object) != (r.dtype == object):
        raise DataError("strings and numbers are never equal", got=f"{p[0]!r} and {r[0]!r}")
    return p, r


# ------------------------------------------------------------------------------------ the metrics


def accuracy(predictions: Any, references: Any) -> dict[str, float]:
    """The share of predictions that are right; nan if there are none."""
    p, r = classes(predictions, references)
    return {"accuracy": float(np.mean(p == r)) if len(p) else math.nan}


def of_classes(name: str) -> Callable[..., dict[str, Any]]:
    """Precision TP / (TP + FP), recall TP / (TP + FN), or f1, their harmonic mean."""

    def metric(
        predictions: Any, references: Any, labels: Any = None, pos_label: Any = 1,
        average: str | None = "binary",
    ) -> dict[str, Any]:  # fmt: skip
        """
        Args:
            labels: the classes that count; by default those that occur.
            pos_label: the one class that counts with average="binary".
            average: "binary"; "micro": of the sums over classes; "macro": the mean over classes;
                "weighted": that mean weighted by rows of the class; None: an array, one a class.
        """
        p, r = classes(predictions, references)
        present = np.unique(np.concatenate([p, r]))
        if average not in AVERAGES:
            raise ArgumentError(f"there is no average={average!r}", expected=AVERAGES)
        if average == "binary":
            if len(present) > 2 or (len(present) == 2 and pos_label not in present.tolist()):
                what = f"binary {name} is of two classes, one of them pos_label={pos_label!r}"
                raise DataError(what, got=present.tolist()[:20], do="pass average= or pos_label=")
            labels = [pos_label]
        labels = present if labels is None else as_array(labels)
        given, true = p[:, None] == labels, r[:, None] == labels  # (rows, classes)
        tp, given, true = (x.sum(0) for x in (given & true, given, true))  # each (classes,)
        if average == "micro":
            tp, given, true = (x.sum(keepdims=True) for x in (tp, given, true))
        over = 2 * tp if name == "f1" else tp
        under = {"precision": given, "recall": true, "f1": given + true}[name]
        if not len(p) or not len(labels):
            return {name: undefined(name, "there are no rows, or no classes:", math.nan)}
        if not under.all():
            none = {"precision": "predicted", "recall": "true", "f1": "true nor predicted"}[name]
            undefined(name, f"a class that counts has no {none} rows, and is taken for", 0.0)
        values = over / np.maximum(under, 1)
        weights = true if average == "weighted" and true.any() else None
        return {name: values if average is None else float(np.average(values, weights=weights))}

    metric.__name__ = name
    return metric


f1, precision, recall = of_classes("f1"), of_classes("precision"), of_classes("recall")


def undefined(name: str, reason: str, value: float) -> float:
    warnings.warn(f"{name} is not defined: {reason} {value}", stacklevel=4)
    return value


def matthews_correlation(predictions: Any, references: Any) -> dict[str, float]:
    """R_K (Gorodkin 2004), which for two classes is Matthews' phi; 0 if either is constant.

    (c n - sum t_k p_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)), c of n rows right, t_k and p_k
    rows of class k and given it. In whole numbers up to the root, so exact.
    """
    p, r = classes(predictions, references)
    n, labels = len(p), np.unique(np.concatenate([p, r]))
    given, true = ((x[:, None] == labels).sum(0).tolist() for x in (p, r))
    together = n * int((p == r).sum()) - sum(a * b for a, b in zip(given, true, strict=True))
    apart = (n * n - sum(a * a for a in given)) * (n * n - sum(b * b for b in true))
    value = together / math.sqrt(apart) if apart else 0.0 if n else math.nan
    return {"matthews_correlation": value}


def confusion_matrix(predictions: Any, references: Any, labels: Any = None) -> dict[str, Any]:
    """int64 of shape (classes, classes): row i, column j: rows of class i that are given j."""
    p, r = classes(predictions, references)
    labels = np.unique(np.concatenate([p, r])) if labels is None else as_array(labels)
    given, true = ((x[:, None] == labels).astype(np.float64) for x in (p, r))
    if len(p) and not true.any():
        raise DataError("no row is of any of these classes", got=labels.tolist())
    return {"confusion_matrix": (true.T @ given).astype(np.int64)}


def pearsonr(predictions: Any, references: Any) -> dict[str, float]:
    """Pearson's correlation; nan if either is constant.

    Raises:
        DataError: fewer than two rows.
    """
    p, r = (x.astype(np.float64) for x in paired(predictions, references))
    if len(p) < 2:
        raise DataError("a correlation needs two rows at least", got=len(p))
    return {"pearsonr": correlation("pearsonr", p, r)}


def spearmanr(predictions: Any, references: Any) -> dict[str, float]:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank."""
    p, r = (x.astype(np.float64) for x in paired(predictions, references))
    return {"spearmanr": correlation("spearmanr", ranks(p), ranks(r))}


def correlation(name: str, x: np.ndarray, y: np.ndarray) -> float:
    if not np.isfinite([x, y]).all() or (x == x[:1]).all() or (y == y[:1]).all():
        return undefined(name, "one side is constant or not finite:", math.nan)
    x, y = (v - v.mean() for v in (x, y))
    x, y = (v / np.abs(v).max() for v in (x, y))  # so that no square is too large or small
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1.0, 1.0))


def ranks(values: np.ndarray) -> np.ndarray:
    """From 1 for the smallest; all nan if one is."""
    if np.isnan(values).any():
        return np.full(len(values), math.nan)
    _, number, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[number]


def exact_match(
    predictions: Any, references: Any, ignore_case: bool = False, ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
) -> dict[str, float]:  # fmt: skip
    """The share of texts that are equal, to the letter or less strictly."""
    p, r = paired(predictions, references)
    left_out = string.punctuation * ignore_punctuation + string.digits * ignore_numbers
    table = str.maketrans("", "", left_out)
    if ignore_case or table:
        texts = [[t.lower() if ignore_case else t for t in x] for x in (p, r)]
        p, r = (as_array([t.translate(table) for t in x]) for x in texts)
    return {"exact_match": accuracy(p, r)["accuracy"]}


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, {"accuracy": Score(share=True)}),
    "f1": Metric(f1, {"f1": Score()}),
    "precision": Metric(precision, {"precision": Score()}),
    "recall": Metric(recall, {"recall": Score()}),
    "matthews_correlation": Metric(matthews_correlation, {"matthews_correlation": Score(-1.0)}),
    "pearsonr": Metric(pearsonr, {"pearsonr": Score(-1.0)}),
    "spearmanr": Metric(spearmanr, {"spearmanr": Score(-1.0)}),
    "exact_match": Metric(exact_match, {"exact_match": Score(share=True)}),
    "confusion_matrix": Metric(confusion_matrix),
}


# -------------------------------------------------------------------------------------- intervals


def wilson(hits: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share of hits in n (Wilson 1927): true to its level for few rows too."""
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, half = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, (middle - half) / (n + z * z)), min(1.0, (middle + half) / (n + z * z))


def ratios(parts: Parts) -> dict[str, float]:
    """The values that the sums make; 0 by 0 is 0."""
    sums = {key: (over.sum(), under.sum()) for key, (over, under) in parts.items()}
    return {key: float(over / under) if under else 0.0 for key, (over, under) in sums.items()}


def drawable(
    metric: Metric, predictions: Any, references: Any, options: Mapping[str, Any]
) -> tuple[int, Callable[[np.ndarray], dict[str, Any]]]:
    """How many units there are, and the metric of those with given numbers, repeated or not."""
    p, r = as_array(predictions), as_array(references)
    if metric.parts is None:
        return len(r), lambda units: metric(p[units], r[units], **options)
    parts = metric.parts(p, r, **options)
    n = len(next(iter(parts.values()))[0])
    return n, lambda units: ratios({key: (a[units], b[units]) for key, (a, b) in parts.items()})


def bootstrap(n: int, measure: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, np.ndarray]:
    """What is measured on RESAMPLES draws of n units with replacement (Efron 1979), by key."""
    generator = np.random.default_rng(derive(0, "bootstrap"))
    with warnings.catch_warnings():  # a draw may lack a class: the rows that are there do not
        warnings.simplefilter("ignore")
        drawn = [measure(generator.integers(0, n, n)) for _ in range(RESAMPLES)]
    floats = [key for key, value in drawn[0].items() if isinstance(value, float)]
    return {key: np.array([values[key] for values in drawn]) for key in floats}


def percentiles(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The middle of what a bootstrap gave; draws where the metric was not defined are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def intervals(
    metric: Metric, predictions: Any, references: Any, confidence: float, options: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """{key: (low, high)} for each float: Wilson's for shares, else of a bootstrap."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} is no level", expected="for example 0.95")
    n, measure = drawable(metric, predictions, references, options)
    values = {k: v for k, v in measure(np.arange(n)).items() if isinstance(v, float)} if n else {}
    shares = {key for key, score in metric.scores.items() if score.share}
    drawn = bootstrap(n, measure) if set(values) - shares else {}
    return {
        k: wilson(v * n, n, confidence) if k in shares else percentiles(drawn[k], confidence)
        for k, v in values.items()
    }


# -------------------------------------------------------------------------------- finding them


class EvaluationModule:
    """What `load` returns: `compute` at once, or `add_batch` along the way and then `compute`.

    `range` is (low, high) and `higher_is_better` True or False; a dict by key where the metric has
    several numbers, None where it does not say.
    """

    def __init__(self, name: str, metric: Metric) -> None:
        self.name, self.metric, scores = name, metric, metric.scores
        self.range = one_or_all({key: (s.low, s.high) for key, s in scores.items()})
        self.higher_is_better = one_or_all({key: s.higher_is_better for key, s in scores.items()})
        self._predictions: list[np.ndarray] = []
        self._references: list[np.ndarray] = []

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

    def compute(
        self, predictions: Any = None, references: Any = None, confidence: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The metric of what was added and given; then forget it.

        Args:
            confidence: 0.95 adds "KEY_interval": (low, high) for each number.
            options: the metric's own, such as average="macro".
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions, references)
        if not self._predictions:
            raise DataError(f"{self.name}: nothing was added to compute a metric from")
        p, r = np.concatenate(self._predictions), np.concatenate(self._references)
        self._predictions, self._references = [], []
        result = self.metric(p, r, **options)
        if confidence is not None:
            found = intervals(self.metric, p, r, confidence, options)
            result |= {f"{key}_interval": interval for key, interval in found.items()}
        return result

    def __repr__(self) -> str:
        return f"EvaluationModule({self.name!r})"


def one_or_all(values: dict[str, Any]) -> Any:
    return values if len(values) > 1 else next(iter(values.values()), None)


def all_metrics() -> dict[str, Metric]:
    """Those of this file and of plugins, by name."""
    given = registry(default_manager(), "minift_register_metrics")
    found = {name: one.value for name, one in given.items()}
    return METRICS | {k: m if isinstance(m, Metric) else Metric(m) for k, m in found.items()}


def find_metric(name: str) -> Metric:
    """A metric by name: of this file, or of a plugin.

    Raises:
        ConfigError: there is none of that name; names the nearest.
    """
    known = all_metrics()
    if name not in known:
        inside = [key.split("/", 1)[1] for key in known if key.startswith(f"{name}/")]
        if inside:
            what = f"{name!r} has a metric for each of its tasks"
            raise ConfigError(what, expected=", ".join(inside), do="name one: load(name, config)")
        raise ConfigError(f"no metric is called {name!r}", expected=nearest(name, known))
    return known[name]


def higher_is_better(key: str) -> bool | None:
    """Whether more is better of a number with this name; None if no metric says, or they differ."""
    scores = [metric.scores[key] for metric in all_metrics().values() if key in metric.scores]
    said = {score.higher_is_better for score in scores}
    return said.pop() if len(said) == 1 else None


def load(path: str, config_name: str | None = None) -> EvaluationModule:
    """`load("accuracy")`, `load("glue", "mrpc")`."""
    name = f"{path}/{config_name}" if config_name else path
    return EvaluationModule(name, find_metric(name))
