"""`minift compare`: two models on the same rows, and what of their difference chance explains."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from minift.errors import DataError

LEVEL = 0.95


class Compare:
    """The command, as `minift_register_commands` wants it."""

    help = "whether one model is better than another on the same rows, or it is noise"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.allow_abbrev = False
        parser.add_argument("a", metavar="RUN_A", help="run folder: what is compared with")
        parser.add_argument("b", metavar="RUN_B", help="run folder: what may be better or worse")
        parser.add_argument("--split", help="which rows (default: validation)")
        parser.add_argument("--metric", help="metrics to compare by (default: RUN_A's own)")
        parser.add_argument("--dataset", help="rows other than those that the runs had")
        parser.add_argument("--task", help="what the rows are, for models that are no runs")
        parser.add_argument("--device", default="auto")
        parser.add_argument("--json", action="store_true", help="for programs")

    @staticmethod
    def run(args: Namespace) -> int:
        first = Answered(args.a, args)
        args.metric = ",".join(first.inputs.metrics)  # B's own may be others
        second = Answered(args.b, args)
        check_rows(first, second)
        found = {"a": args.a, "b": args.b, "split": first.split}
        found |= {"rows": len(first.inputs.rows(first.split)), "answers": len(first.answers[1])}
        found |= {"level": LEVEL, "scores": {}}
        for name in first.inputs.metrics:
            found["scores"] |= compared(name, first.answers, second.answers)
        print(json.dumps(found, indent=2) if args.json else readable(found))
        return 0


class Answered:
    """A model's answers to a split, as the predictions and references of its metrics."""

    def __init__(self, folder: str, args: Namespace) -> None:
        from minift_commands.inputs import inputs_for, predicted

        from minift.training.evaluation import EvalPrediction

        self.inputs = inputs_for(folder, args)
        self.split, output = predicted(folder, self.inputs, args.split, args.device)
        prediction = EvalPrediction(output.predictions, output.label_ids)
        self.answers = self.inputs.answers_of(self.split)(prediction)


def check_rows(first: Answered, second: Answered) -> None:
    """Both models must have answered the same questions.

    Raises:
        DataError: a text or a label of some row is another, or the classes are.
    """
    do = "pass --dataset and --split with rows that are for both"
    if first.inputs.names != second.inputs.names:
        got = f"{first.inputs.names} and {second.inputs.names}"
        raise DataError("the runs have other classes", got=got, do=do)
    tables = [model.inputs.rows(model.split) for model in (first, second)]
    for name in (*first.inputs.text_columns, *second.inputs.text_columns, "labels"):
        one, other = (list(rows[name]) if name in rows.features else [] for rows in tables)
        if one != other:
            same = [a == b for a, b in zip(one, other, strict=False)]
            row = same.index(False) if False in same else len(same)
            what = f"the runs have other rows: row {row} is the first to differ in {name!r}"
            got = f"{len(one)} rows of {first.split} and {len(other)} of {second.split}"
            raise DataError(what, got=got, do=do)


def compared(name: str, first: Any, second: Any) -> dict[str, dict[str, Any]]:
    """By key: both values, their difference, intervals of all three, p, and a verdict on B.

    The difference's interval is of a paired bootstrap: each draw of rows scores both models. Where
    rows are right or wrong McNemar's exact p decides, else whether the interval excludes 0.
    """
    import numpy as np

    from minift import evaluate
    from minift.training.callbacks import more_is_better

    metric = evaluate.find_metric(name)
    (n, measure), (_, other) = (evaluate.drawable(metric, p, r, {}) for p, r in (first, second))

    def gains(rows: Any) -> dict[str, float]:
        one, two = measure(rows), other(rows)
        return {key: two[key] - one[key] for key, value in one.items() if isinstance(value, float)}

    a, b, gain = (function(np.arange(n)) for function in (measure, other, gains))
    of_a, of_b = (evaluate.intervals(metric, p, r, LEVEL, {}) for p, r in (first, second))
    drawn, found = evaluate.bootstrap(n, gains), {}
    for key in gain:
        low, high = evaluate.percentiles(drawn[key], LEVEL)
        score, p = metric.scores.get(key), None
        if score and score.share and metric.parts is None:
            p = mcnemar(*(np.equal(p, r) for p, r in (first, second)))
        told = low > 0 or high < 0 if p is None else p < 1 - LEVEL
        better = (gain[key] > 0) == more_is_better(key)
        found[key] = {
            "a": a[key], "a_interval": of_a[key], "b": b[key], "b_interval": of_b[key],
            "difference": gain[key], "difference_interval": (low, high), "p": p,
            "verdict": "noise" if not told else "better" if better else "worse",
        }  # fmt: skip
    return found


def mcnemar(first_right: Any, second_right: Any) -> float:
    """Two-sided exact p (McNemar 1947), where each of two arrays says which rows are right.

    Of the n rows that only one model has right, each would be A's or B's with equal chance.
    """
    alone = int((first_right > second_right).sum()), int((first_right < second_right).sum())
    n, term, total = sum(alone), 1, 0
    for k in range(min(alone) + 1):
        total += term  # n over k
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


def readable(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = ["A      {a}\nB      {b}\n{rows} rows of the split {split}".format(**found)]
    if found["answers"] != found["rows"]:  # a question's choices are a row each
        lines[0] += f", {found['answers']} answers"
    for key, score in found["scores"].items():
        for side, head, sign in (("a", "A", ""), ("b", "B", ""), ("difference", "B - A", "+")):
            low, high = (f"{value:{sign}.4f}" for value in score[f"{side}_interval"])
            lines.append(f"{head:6} {key} {score[side]:{sign}.4f} ({low} to {high})")
        p = "" if score["p"] is None else f" (p {score['p']:.3g})"
        said = score["verdict"] if score["verdict"] == "noise" else f"B is {score['verdict']}"
        lines.append(f"{key}: {said}{p}")
    return "\n".join(lines)
