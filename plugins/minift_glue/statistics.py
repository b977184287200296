"""Metrics: accuracy, precision, recall, F1, confusion matrix, exact match, correlations.

GLUE's tasks are scored by some of them. The names are those of `evaluate.load`.

Everything is computed in float64. Where a metric is not defined, its value is the one of
scikit-learn and scipy (0.0 or nan), with a warning that gives the reason. Only without any rows
does minift return nan where they raise.
"""

import math
import string
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minift.errors import ArgumentError, DataError
from minift.evaluate import Metric, ScoreInfo, as_array

PER_CLASS = ("f1", "precision", "recall")
AVERAGES = ("binary", "micro", "macro", "weighted", None)


def paired(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays of shape (rows,) or (rows, labels), or raise a DataError."""
    p, r = as_array(predictions), as_array(references)
    if p.shape != r.shape or p.ndim not in (1, 2):
        what = "predictions and references must be two equally long sequences"
        do = "from logits: argmax(-1), or > 0 with several labels a row, or [:, 0] for numbers"
        raise DataError(what, got=f"shapes {p.shape} and {r.shape}", do=do)
    return p, r


def paired_classes(predictions: Any, references: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays of classes, which are whole numbers or strings."""
    p, r = paired(predictions, references)
    for values in (p, r):
        if values.dtype == object and (missing := [i for i, v in enumerate(values) if v is None]):
            raise DataError("a class is missing", got=f"None in row {missing[0]}")
        if values.dtype.kind == "f" and (fractions := values[values % 1 != 0]).size:
            raise DataError("class numbers are whole numbers", got=fractions[0])
    if len(p) and (p.dtype == object) != (r.dtype == object):
        raise DataError("strings and numbers are never equal", got=f"{p[0]!r} and {r[0]!r}")
    return p, r


def accuracy(predictions: Any, references: Any) -> dict[str, float]:
    """The proportion of rows that are right, in all their labels; nan without rows."""
    p, r = paired_classes(predictions, references)
    right = p == r if p.ndim == 1 else (p == r).all(axis=1)
    return {"accuracy": float(np.mean(right)) if len(p) else math.nan}


def per_class_metric(name: str) -> Callable[..., dict[str, Any]]:
    """Return precision TP / (TP + FP), recall TP / (TP + FN), or f1, their harmonic mean."""

    def metric(
        predictions: Any, references: Any, labels: Any = None, pos_label: Any = 1,
        average: str | None = "binary",
    ) -> dict[str, Any]:  # fmt: skip
        """
        Args:
            predictions, references: classes of shape (rows,); or 0 and 1 of shape (rows, labels).
            labels: the classes to average over; by default all that occur.
            pos_label: the class to score with average="binary".
            average: "binary": one class; "micro": the ratio of sums over classes; "macro": the
                mean over classes; "weighted": that mean, weighted by the rows of each class;
                None: an array with a value for each class.
        """
        p, r = paired_classes(predictions, references)
        several, present = p.ndim == 2, np.unique(np.concatenate([p, r]))
        if average not in AVERAGES:
            raise ArgumentError(f"there is no average={average!r}", expected=AVERAGES)
        if average == "binary":
            known = len(present) < 2 or pos_label in present.tolist()
            if several or len(present) > 2 or not known:
                what = f"binary {name} is of two classes, one of them pos_label={pos_label!r}"
                got = f"{p.shape[1]} labels a row" if several else present.tolist()[:20]
                do = f"take {name}_macro, {name}_micro or {name}_weighted; or, to compute, pass "
                raise DataError(what, got=got, do=do + "average= or pos_label=")
            labels = [pos_label]
        if several:
            labels, predicted, actual = np.arange(p.shape[1]), p == 1, r == 1  # (rows, labels)
            if not np.isin(present, (0, 1)).all():
                raise DataError("several labels a row are 0 or 1 each", got=present.tolist()[:20])
        else:
            labels = present if labels is None else as_array(labels)
            predicted, actual = p[:, None] == labels, r[:, None] == labels  # (rows, classes)
        counts = (predicted & actual, predicted, actual)
        tp, predicted, actual = (rows.sum(0) for rows in counts)  # (classes,)
        if average == "micro":
            tp, predicted, actual = (n.sum(keepdims=True) for n in (tp, predicted, actual))
        numerator = 2 * tp if name == "f1" else tp
        denominator = {"precision": predicted, "recall": actual, "f1": predicted + actual}[name]
        if not len(p) or not len(labels):
            return {name: undefined(name, "there are no rows, or no classes:", math.nan)}
        if not denominator.all():
            none = {"precision": "predicted", "recall": "true", "f1": "true nor predicted"}[name]
            undefined(name, f"a class that counts has no {none} rows, and is taken for", 0.0)
        values = numerator / np.maximum(denominator, 1)
        weights = actual if average == "weighted" and actual.any() else None
        return {name: values if average is None else float(np.average(values, weights=weights))}

    metric.__name__ = name
    return metric


def one_a_row(paired: Callable[..., tuple[Any, Any]], *both: Any) -> tuple[Any, Any]:
    """Return predictions and references of shape (rows,), or raise a DataError."""
    p, r = paired(*both)
    if p.ndim == 2:
        what, got = "this metric takes one class or number a row", f"{p.shape[1]} labels a row"
        do = "take accuracy, f1_macro, f1_micro or f1_weighted"
        raise DataError(what, got=got, do=do)
    return p, r


precision, recall, f1 = map(per_class_metric, ("precision", "recall", "f1"))


def confusion_matrix(predictions: Any, references: Any, labels: Any = None) -> dict[str, Any]:
    """int64 of shape (classes, classes): entry [i, j] counts rows of class i predicted as j."""
    p, r = one_a_row(paired_classes, predictions, references)
    labels = np.unique(np.concatenate([p, r])) if labels is None else as_array(labels)
    predicted, actual = ((x[:, None] == labels).astype(np.float64) for x in (p, r))
    if len(p) and not actual.any():
        raise DataError("no row is of any of these classes", got=labels.tolist())
    return {"confusion_matrix": (actual.T @ predicted).astype(np.int64)}


def exact_match(
    predictions: Any, references: Any, ignore_case: bool = False, ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
) -> dict[str, float]:  # fmt: skip
    """The proportion of texts that are equal to their reference."""
    p, r = one_a_row(paired, predictions, references)
    ignored = string.punctuation * ignore_punctuation + string.digits * ignore_numbers
    table = str.maketrans("", "", ignored)
    if ignore_case or table:
        texts = [[t.lower() if ignore_case else t for t in x] for x in (p, r)]
        p, r = (as_array([t.translate(table) for t in x]) for x in texts)
    return {"exact_match": accuracy(p, r)["accuracy"]}


def matthews_correlation(predictions: Any, references: Any) -> dict[str, float]:
    """R_K (Gorodkin 2004), which for two classes is Matthews' phi; 0 if either side is constant.

    (c n - sum p_k a_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum a_k^2)), where c of n rows are right,
    and p_k rows are predicted to be of class k and a_k actually are. Python's integers keep it
    exact up to the root.
    """
    p, r = one_a_row(paired_classes, predictions, references)
    n, labels = len(p), np.unique(np.concatenate([p, r]))
    predicted, actual = ((x[:, None] == labels).sum(0).tolist() for x in (p, r))
    by_chance = sum(a * b for a, b in zip(predicted, actual, strict=True))
    covariance = n * int((p == r).sum()) - by_chance
    variances = (n * n - sum(a * a for a in predicted)) * (n * n - sum(b * b for b in actual))
    value = covariance / math.sqrt(variances) if variances else 0.0
    return {"matthews_correlation": value if n else math.nan}


def pearsonr(predictions: Any, references: Any) -> dict[str, float]:
    """Pearson's correlation; nan if either side is constant.

    Raises:
        DataError: fewer than two rows.
    """
    p, r = (x.astype(np.float64) for x in one_a_row(paired, predictions, references))
    if len(p) < 2:
        raise DataError("a correlation needs two rows at least", got=len(p))
    return {"pearsonr": correlation("pearsonr", p, r)}


def spearmanr(predictions: Any, references: Any) -> dict[str, float]:
    """Spearman's correlation: Pearson's of the ranks, where ties share their mean rank."""
    p, r = (x.astype(np.float64) for x in one_a_row(paired, predictions, references))
    return {"spearmanr": correlation("spearmanr", ranks(p), ranks(r))}


def undefined(name: str, reason: str, value: float) -> float:
    """Warn that a metric is not defined, and return the value used instead."""
    warnings.warn(f"{name} is not defined: {reason} {value}", stacklevel=4)
    return value


def correlation(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation of two arrays of shape (rows,)."""
    if not np.isfinite([x, y]).all() or (x == x[:1]).all() or (y == y[:1]).all():
        return undefined(name, "one side is constant or not finite:", math.nan)
    x, y = (v - v.mean() for v in (x, y))
    x, y = (v / np.abs(v).max() for v in (x, y))  # so that no square overflows or underflows
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1.0, 1.0))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, from 1 for the smallest; all nan if one value is."""
    if np.isnan(values).any():
        return np.full(len(values), math.nan)
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


def averaged(name: str, average: str) -> Metric:
    """Return precision, recall or f1 with an average over classes, as a metric of its own."""

    def metric(predictions: Any, references: Any) -> dict[str, float]:
        value = per_class_metric(name)(predictions, references, average=average)[name]
        return {f"{name}_{average}": value}

    metric.__name__ = f"{name}_{average}"
    return Metric(metric, {metric.__name__: ScoreInfo()})


METRICS = {
    "accuracy": Metric(accuracy, {"accuracy": ScoreInfo(is_proportion=True)}),
    "confusion_matrix": Metric(confusion_matrix),
    "f1": Metric(f1, {"f1": ScoreInfo()}),
    "precision": Metric(precision, {"precision": ScoreInfo()}),
    "recall": Metric(recall, {"recall": ScoreInfo()}),
    "exact_match": Metric(exact_match, {"exact_match": ScoreInfo(is_proportion=True)}),
    "matthews_correlation": Metric(matthews_correlation, {"matthews_correlation": ScoreInfo(-1.0)}),
    "pearsonr": Metric(pearsonr, {"pearsonr": ScoreInfo(-1.0)}),
    "spearmanr": Metric(spearmanr, {"spearmanr": ScoreInfo(-1.0)}),
}
METRICS |= {
    f"{name}_{average}": averaged(name, average)
    for name in PER_CLASS
    for average in ("macro", "micro", "weighted")
}
# As `evaluate` names them; here the metrics themselves take several labels a row.
METRICS |= {f"{name}/multilabel": METRICS[name] for name in ("accuracy", *PER_CLASS)}
