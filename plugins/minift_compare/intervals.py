"""How sure a score is: Wilson's interval for proportions, a bootstrap for every other metric.

Both take the rows at hand for a sample of all rows there could be. Of proportions the distribution
is known. For other metrics the sample stands for the population: rows are drawn from it with
replacement, and the middle 95 % of the scores of many such draws are the interval.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from minift.evaluate import Metric, as_array, ratio_of_sums
from minift.rng import derive

CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A score of a model on some rows, and what it could have been on others like them.

    Attributes:
        value: the score on the rows.
        interval: its confidence interval, (low, high).
        resampled: its values on bootstrap draws, of shape (RESAMPLES,). The i-th draw has the same
            rows for every model, so that two models can be compared draw by draw.
    """

    value: float
    interval: tuple[float, float]
    resampled: np.ndarray


def estimate(
    metric: Metric, predictions: Any, references: Any, confidence: float = CONFIDENCE
) -> dict[str, Estimate]:
    """Return an estimate for each float of the metric, by key; {} if there are no rows."""
    n, score = resampler(metric, predictions, references)
    if not n:
        return {}
    values = {key: v for key, v in score(np.arange(n)).items() if isinstance(v, float)}
    draws = bootstrap(n, score) if values else []
    estimates = {}
    for key, value in values.items():
        resampled = np.array([draw[key] for draw in draws])
        info = metric.score_info.get(key)
        if info is not None and info.is_proportion:
            interval = wilson(value * n, n, confidence)
        else:
            interval = percentile_interval(resampled, confidence)
        estimates[key] = Estimate(value, interval, resampled)
    return estimates


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of a binomial proportion (Wilson 1927), which holds for small n."""
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    center = successes + z * z / 2
    margin = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return max(0.0, (center - margin) / (n + z * z)), min(1.0, (center + margin) / (n + z * z))


def resampler(
    metric: Metric, predictions: Any, references: Any
) -> tuple[int, Callable[[np.ndarray], dict[str, Any]]]:
    """Return n, the number of units to draw, and a function that scores a draw of them.

    A unit is a row, or a group of rows where the metric scores such groups as one. The function
    takes indices of units, which may repeat, of shape (n,).
    """
    p, r = as_array(predictions), as_array(references)
    if metric.group_ratios is None:
        return len(r), lambda units: metric(p[units], r[units])
    groups = metric.group_ratios(p, r)
    n = len(next(iter(groups.values()))[0])
    return n, lambda units: ratio_of_sums({k: (a[units], b[units]) for k, (a, b) in groups.items()})


def bootstrap(n: int, score: Callable[[np.ndarray], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of RESAMPLES draws of n units with replacement (Efron 1979).

    The generator starts from the same seed each time, so draws are the same for every model.
    """
    generator = np.random.default_rng(derive(0, "bootstrap"))
    with warnings.catch_warnings():  # that a draw lacks a class says nothing about the rows
        warnings.simplefilter("ignore")
        return [score(generator.integers(0, n, n)) for _ in range(RESAMPLES)]


def percentile_interval(
    resampled: np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the middle part of bootstrap scores; draws with an undefined score are left out."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
