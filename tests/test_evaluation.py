"""What compute_metrics may return, and its trial on two rows before the first step."""

import functools
import json
import threading
import types

import numpy as np
import pytest
import torch

from minift import Trainer, TrainingArguments
from minift.errors import ArgumentError, ConfigError, DataError
from minift.testing import tiny
from minift.training.evaluation import loggable


def trainer(compute_metrics, folder=None, **settings):
    settings = {"num_train_epochs": 2, "eval_strategy": "epoch", **settings}
    args = TrainingArguments(folder, device="cpu", precision="fp32", **settings)
    return Trainer(
        tiny.model(), args, data_collator=tiny.collate, train_dataset=tiny.rows(22),
        eval_dataset=tiny.rows(8), compute_metrics=compute_metrics,
    )  # fmt: skip


def logged(made, name):
    return [record[name] for record in made.state.log_history if name in record]


@pytest.mark.parametrize(
    ("returned", "plain"),
    [
        ({"0": {"support": np.int64(3), "f1": np.float32(0.5)}}, {"0": {"support": 3, "f1": 0.5}}),
        ({0: {"f1": 0.5}, np.int64(1): {"f1": 1.0}}, {"0": {"f1": 0.5}, "1": {"f1": 1.0}}),
        ([np.int64(1), np.float32(0.5)], [1, 0.5]),
        ((np.arange(2), 1), [[0, 1], 1]),
        (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        (torch.tensor([1.0, 0.5], requires_grad=True), [1.0, 0.5]),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (np.bool_(True), True),
        (None, None),
        ("              precision    recall", "              precision    recall"),
        ({"deep": [{"er": (torch.tensor(1),)}]}, {"deep": [{"er": [1]}]}),
    ],
)
def test_nested_numbers_are_logged_as_pythons(tmp_path, capsys, returned, plain):
    """A report by class ended the first evaluation, before anything of that epoch was saved."""
    made = trainer(lambda p: {"report": returned}, str(tmp_path))
    made.train()
    assert logged(made, "eval_report") == [plain, plain]
    assert made.evaluate()["eval_report"] == plain
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert next(r["eval_report"] for r in map(json.loads, lines) if "eval_report" in r) == plain
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["scores"]["values"]["report"] == plain
    assert "unplugged" not in capsys.readouterr().err, "what shows a run can show it"


@pytest.mark.parametrize(
    "returned",
    [None, 0.5, (0.5,), [("accuracy", 0.5)], "0.5", {0: 0.5}, {None: 1.0}, {("a", "b"): 1.0},
     {"x": {1, 2}}, {"x": object()}, {"x": 1j}, {"x": [b"1"]}, np.float32(0.5), {"x": len}],
    ids=lambda returned: repr(returned).partition(" at 0x")[0],  # workers must agree on names
)  # fmt: skip
def test_what_cannot_be_logged_is_an_error_before_training(returned):
    made = trainer(lambda p: returned)
    with pytest.raises(ArgumentError, match="compute_metrics must return a dict") as caught:
        made.train()
    assert made.state.global_step == 0
    assert caught.value.got and (caught.value.expected or caught.value.do)


def test_any_mapping_will_do():
    assert loggable(types.MappingProxyType({"a": np.int64(1)})) == {"a": 1}
    assert loggable({}) == {}


def test_the_trial_is_one_call_with_two_rows(capsys):
    def compute_metrics(prediction):
        logits, labels = prediction
        print(len(logits), len(labels), len(prediction.rows))
        return {}

    trainer(compute_metrics).train()
    assert capsys.readouterr().out.splitlines() == ["2 2 2", "8 8 8", "8 8 8"]


def test_there_is_no_trial_where_training_does_not_evaluate():
    made = trainer(lambda p: None, eval_strategy="no")
    made.train()
    with pytest.raises(ArgumentError, match="compute_metrics must return"):
        made.evaluate()


@pytest.mark.parametrize(
    "needs",
    [
        lambda logits, labels: 1 / (len(labels) - 2),
        lambda logits, labels: np.bincount(labels[:2], minlength=2)[len(labels)],  # too few classes
        lambda logits, labels: {"more": 1}[str(len(labels) > 2).replace("True", "more")],
        lambda logits, labels: (labels + np.zeros(8)).mean(),  # knows that there are 8 rows
        lambda logits, labels: None if len(labels) > 2 else [].pop(),
        lambda logits, labels: len(labels) > 2 or next(iter(())),
    ],
    ids=["ZeroDivisionError", "IndexError", "KeyError", "ValueError", "pop", "StopIteration"],
)
def test_a_metric_that_needs_more_rows_is_no_error(needs, capsys):
    def compute_metrics(prediction):
        logits, labels = prediction
        if len(labels) == 2:
            needs(logits, labels)
        return {"fine": 1.0}

    made = trainer(compute_metrics)
    made.train()
    assert logged(made, "eval_fine") == [1.0, 1.0]
    assert "If it needs more, nothing is wrong" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [AttributeError("x"), TypeError("x"), NameError("x"), ImportError("x"), DataError("x")]
)
def test_an_error_that_rather_is_a_mistake_is_raised_before_training(error):
    def wrong(prediction):
        raise error

    made = trainer(wrong)
    with pytest.raises(type(error)):
        made.train()
    assert made.state.global_step == 0


class Churn:
    """The share of predictions that differ from those of the evaluation before."""

    def __init__(self):
        self.before, self.evaluations = None, []
        self.lock = None

    def __call__(self, prediction):
        now = prediction.predictions.argmax(-1)
        churn = 0.0 if self.before is None else float((now != self.before).mean())
        self.before = now
        self.evaluations.append(len(now))
        return {"churn": churn, "evaluations": len(self.evaluations)}


GLOBAL = Churn()
CALLS = 0


def keeps_it_in_global_names(prediction):
    global CALLS
    CALLS += 1
    return {**GLOBAL(prediction), "calls": CALLS}


@pytest.mark.parametrize("how", ["object", "method", "partial", "closure", "global"])
def test_a_metric_with_a_state_sees_all_rows_first(how):
    """Two rows would not fit the eight of the next call."""
    metric = GLOBAL if how == "global" else Churn()
    functions = {
        "object": metric,
        "method": metric.__call__,
        "partial": functools.partial(Churn.__call__, metric),
        "closure": lambda prediction: metric(prediction),
        "global": keeps_it_in_global_names,
    }
    made = trainer(functions[how])
    made.train()
    assert logged(made, "eval_evaluations") == [1, 2]
    assert metric.evaluations == [8, 8]
    assert how != "global" or logged(made, "eval_calls") == [1, 2]


def test_a_metric_that_counts_on_an_iterator():
    scores = iter([0.5, 0.75])
    made = trainer(lambda prediction: {"score": next(scores)})
    made.train()
    assert logged(made, "eval_score") == [0.5, 0.75]


def test_a_metric_that_cannot_be_copied_is_called_itself():
    metric = Churn()
    metric.lock = threading.Lock()
    metric.__class__ = type("Sum", (Churn,), {"__call__": lambda self, p: {"rows": len(p[1])}})
    made = trainer(metric)
    made.train()
    assert logged(made, "eval_rows") == [8, 8]


def test_the_trial_changes_no_weight_and_no_record():
    plain, tried = trainer(None), trainer(lambda p: {"one": 1})
    for made in (plain, tried):
        made.train()
    for a, b in zip(plain.model.parameters(), tried.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert logged(plain, "eval_loss") == logged(tried, "eval_loss")


@pytest.mark.parametrize("value", [{"a": 1.0}, [0.5], "high", (1,)])
def test_the_best_metric_is_a_number(value):
    made = trainer(lambda p: {"report": value}, metric_for_best_model="report")
    with pytest.raises(ConfigError, match="metric_for_best_model='report'"):
        made.train()


@pytest.mark.parametrize(
    "value", [np.float32(0.5), torch.tensor(0.5), np.array(0.5), 1, np.int64(1)]
)
def test_the_best_metric_may_be_any_librarys_number(value):
    made = trainer(lambda p: {"score": value}, metric_for_best_model="score")
    made.train()
    assert made.state.best_metric == float(value) and made.state.best_step == 3


@pytest.mark.parametrize("settings", [{"eval_strategy": "steps"}, {"eval_on_start": True}])
def test_evaluating_in_training_needs_rows(settings):
    args = TrainingArguments(None, device="cpu", precision="fp32", **settings)
    for rows in (None, tiny.rows(2).select([])):
        made = Trainer(
            tiny.model(), args, data_collator=tiny.collate, train_dataset=tiny.rows(8),
            eval_dataset=rows,
        )  # fmt: skip
        with pytest.raises(ConfigError, match="needs an eval_dataset with rows"):
            made.train()
