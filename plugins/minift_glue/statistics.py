"""Metrics beside accuracy and F1: the confusion matrix, exact match, three correlations.

GLUE's tasks are scored by some of them. The names are those of `evaluate.load`.
"""

import math
import string
from typing import Any

import numpy as np

from minift.errors import DataError
from minift.evaluate import Metric, ScoreInfo, accuracy, as_array, paired, paired_classes, undefined


def confusion_matrix(predictions: Any, references: Any, labels: Any = None) -> dict[str, Any]:
    """int64 of shape (classes, classes): entry [i, j] counts rows of class i predicted as j."""
    p, r = paired_classes(predictions, references)
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
    p, r = paired(predictions, references)
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
    p, r = paired_classes(predictions, references)
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
    p, r = (x.astype(np.float64) for x in paired(predictions, references))
    if len(p) < 2:
        raise DataError("a correlation needs two rows at least", got=len(p))
    return {"pearsonr": correlation("pearsonr", p, r)}


def spearmanr(predictions: Any, references: Any) -> dict[str, float]:
    """Spearman's correlation: Pearson's of the ranks, where ties share their mean rank."""
    p, r = (x.astype(np.float64) for x in paired(predictions, references))
    return {"spearmanr": correlation("spearmanr", ranks(p), ranks(r))}


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


METRICS = {
    "confusion_matrix": Metric(confusion_matrix),
    "exact_match": Metric(exact_match, {"exact_match": ScoreInfo(is_proportion=True)}),
    "matthews_correlation": Metric(matthews_correlation, {"matthews_correlation": ScoreInfo(-1.0)}),
    "pearsonr": Metric(pearsonr, {"pearsonr": ScoreInfo(-1.0)}),
    "spearmanr": Metric(spearmanr, {"spearmanr": ScoreInfo(-1.0)}),
}
