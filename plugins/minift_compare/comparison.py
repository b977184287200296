"""Two models on the same rows, and whether chance explains their difference."""

from argparse import Namespace
from typing import Any

import numpy as np
from minift_commands.build import inputs_for, predict_split
from minift_commands.options import DataOptions

from minift.errors import DataError
from minift.evaluate import find_metric, higher_is_better
from minift.training.evaluation import EvalPrediction
from minift_compare.intervals import CONFIDENCE, estimate, percentile_interval


def compare_runs(folder_a: str, folder_b: str, args: Namespace) -> dict[str, Any]:
    """Return the report of `minift compare`: which rows, and `compare` for each metric.

    Raises:
        DataError: the models answer other rows, or have other classes.
    """
    first = Answers(folder_a, args)
    args.metric = ",".join(first.inputs.metrics)  # those of run B may be others
    second = Answers(folder_b, args)
    check_same_rows(first, second)
    scores: dict[str, Any] = {}
    for name in first.inputs.metrics:
        scores |= compare(name, first.metric_inputs, second.metric_inputs)
    return {
        "a": folder_a,
        "b": folder_b,
        "split": first.split,
        "rows": len(first.inputs.rows(first.split)),
        "answers": len(first.metric_inputs[1]),
        "level": CONFIDENCE,
        "scores": scores,
    }


class Answers:
    """A model's answers to the rows of a split.

    Attributes:
        inputs: the rows, as `minift train` prepared them for the model.
        split: the name of the split.
        metric_inputs: (predictions, references) for the metrics.
    """

    def __init__(self, folder: str, args: Namespace) -> None:
        self.inputs = inputs_for(folder, DataOptions.from_args(args))
        self.split, output = predict_split(folder, self.inputs, args.split, args.device)
        prediction = EvalPrediction(output.predictions, output.label_ids)
        self.metric_inputs = self.inputs.metric_inputs(self.split)(prediction)


def check_same_rows(first: Answers, second: Answers) -> None:
    """Raise a DataError unless both models answered the same rows, with the same classes."""
    do = "pass --dataset and --split with rows that are for both"
    if first.inputs.label_names != second.inputs.label_names:
        got = f"{first.inputs.label_names} and {second.inputs.label_names}"
        raise DataError("the runs have other classes", got=got, do=do)
    datasets = [model.inputs.rows(model.split) for model in (first, second)]
    for name in (*first.inputs.text_columns, *second.inputs.text_columns, "labels"):
        a, b = (list(data[name]) if name in data.features else [] for data in datasets)
        if a != b:
            equal = [x == y for x, y in zip(a, b, strict=False)]
            row = equal.index(False) if False in equal else len(equal)
            what = f"the runs have other rows: row {row} is the first to differ in {name!r}"
            got = f"{len(a)} rows of {first.split} and {len(b)} of {second.split}"
            raise DataError(what, got=got, do=do)


def compare(
    name: str, first: tuple[Any, Any], second: tuple[Any, Any]
) -> dict[str, dict[str, Any]]:
    """Compare model B with model A by one metric.

    Whether rows are right or wrong is tested with McNemar's exact test. Any other score differs if
    the 95 % interval of a paired bootstrap of its difference excludes 0.

    Args:
        name: of the metric.
        first, second: (predictions, references) of A and of B, for the same rows in the same order.

    Returns:
        By key of the metric: values of A and B, their difference, the intervals of all three, p of
        McNemar's test or None, and a verdict on B: "better", "worse" or "noise".
    """
    metric = find_metric(name)
    a, b = estimate(metric, *first), estimate(metric, *second)
    results: dict[str, dict[str, Any]] = {}
    for key in a:
        difference = b[key].value - a[key].value
        low, high = percentile_interval(b[key].resampled - a[key].resampled)  # the pairs: draws
        info, p = metric.score_info.get(key), None
        if info and info.is_proportion and metric.group_ratios is None:
            p = mcnemar(*(np.equal(predictions, labels) for predictions, labels in (first, second)))
        significant = (low > 0 or high < 0) if p is None else p < 1 - CONFIDENCE
        improved = (difference > 0) == higher_is_better(key)
        results[key] = {
            "a": a[key].value, "a_interval": a[key].interval,
            "b": b[key].value, "b_interval": b[key].interval,
            "difference": difference, "difference_interval": (low, high), "p": p,
            "verdict": "noise" if not significant else "better" if improved else "worse",
        }  # fmt: skip
    return results


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """Return the two-sided exact p of McNemar's test (1947).

    Of the n rows that only one of two equally good models has right, each is A's or B's with equal
    chance, so that A's number of them is binomial: p is twice the chance of min(A's, B's) or fewer.

    Args:
        first_right, second_right: which rows A and B have right, bool of shape (rows,).
    """
    only_a = int((first_right > second_right).sum())
    only_b = int((first_right < second_right).sum())
    n = only_a + only_b
    outcomes, binomial = 0, 1  # of 2**n; C(n, k)
    for k in range(min(only_a, only_b) + 1):
        outcomes += binomial
        binomial = binomial * (n - k) // (k + 1)
    return min(1.0, 2 * outcomes / 2**n)


def as_text(report: dict[str, Any]) -> str:
    """Format a report for people, a line for each number and a verdict for each score."""
    lines = ["A      {a}\nB      {b}\n{rows} rows of the split {split}".format(**report)]
    if report["answers"] != report["rows"]:  # a question with choices has a row for each
        lines[0] += f", {report['answers']} answers"
    for key, score in report["scores"].items():
        for side, title, sign in (("a", "A", ""), ("b", "B", ""), ("difference", "B - A", "+")):
            low, high = (f"{value:{sign}.4f}" for value in score[f"{side}_interval"])
            lines.append(f"{title:6} {key} {score[side]:{sign}.4f} ({low} to {high})")
        p = "" if score["p"] is None else f" (p {score['p']:.3g})"
        verdict = score["verdict"] if score["verdict"] == "noise" else f"B is {score['verdict']}"
        lines.append(f"{key}: {verdict}{p}")
    return "\n".join(lines)
