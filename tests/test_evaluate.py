"""Metrics: edge cases, ways to feed them, names. test_golden.py holds scikit-learn's numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minift import evaluate, hookimpl
from minift.errors import ConfigError, DataError
from minift.plugins import build_manager, set_default_manager

LABELS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def compute(name, predictions, references):
    return evaluate.load(name).compute(predictions=predictions, references=references)[name]


@pytest.mark.parametrize(
    ("predictions", "references", "f1", "accuracy"),
    [
        ([0, 0, 0], [1, 0, 1], 0.0, 1 / 3),  # none predicted positive
        ([1, 0, 1], [0, 0, 0], 0.0, 1 / 3),  # none is positive
        ([0, 0], [0, 0], 0.0, 1.0),  # no positive anywhere: scikit-learn says 0 too
        ([1, 0], [0, 1], 0.0, 0.0),  # no true positive
        ([1], [1], 1.0, 1.0),
        ([1, 1, 1, 0], [1, 1, 0, 1], 2 / 3, 0.5),
    ],
)
def test_edges(predictions, references, f1, accuracy):
    assert compute("f1", predictions, references) == pytest.approx(f1, abs=1e-12)
    assert compute("accuracy", predictions, references) == pytest.approx(accuracy, abs=1e-12)


@given(LABELS)
def test_against_the_definition(rows):
    p, r = map(list, zip(*rows, strict=True))
    hits = sum(a == b == 1 for a, b in rows)
    precision = hits / sum(p) if sum(p) else 0.0
    recall = hits / sum(r) if sum(r) else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    assert compute("f1", p, r) == pytest.approx(f1, abs=1e-12)
    assert compute("accuracy", p, r) == pytest.approx(sum(a == b for a, b in rows) / len(rows))


def test_f1_is_of_class_one():
    assert compute("f1", [1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(0.8)
    assert compute("f1", [0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("other", [2, -1, 0.5])
def test_f1_of_other_classes_is_an_error(other):
    with pytest.raises(DataError, match="classes 0 and 1") as caught:
        compute("f1", [0, 1, other], [0, 1, 1])
    assert str(other) in str(caught.value)


def test_accuracy_of_nothing_is_not_a_number():
    assert math.isnan(compute("accuracy", [], []))


def test_accuracy_of_strings():
    assert compute("accuracy", ["a", "b"], ["a", "c"]) == 0.5


def test_logits_are_not_classes():
    with pytest.raises(DataError, match="class numbers") as caught:
        compute("accuracy", np.zeros((4, 2)), [0, 1, 0, 1])
    assert "argmax" in str(caught.value)


# ------------------------------------------------------------------------------------- feeding them


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, tuple])
def test_batch_by_batch_equals_at_once(kind):
    p, r = [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]
    metric = evaluate.load("glue", "mrpc")
    want = metric.compute(predictions=kind(p), references=kind(r))
    assert set(want) == {"accuracy", "f1"}
    for start in (0, 2):
        rows = slice(start, start + 2)
        metric.add_batch(predictions=kind(p[rows]), references=kind(r[rows]))
    metric.add(prediction=p[4], reference=r[4])
    assert metric.compute() == want


def test_tensors_with_gradients_and_on_any_device_come_to_the_host():
    values = torch.tensor([1.0, 0.0], requires_grad=True)
    assert compute("accuracy", values, torch.tensor([1.0, 1.0])) == 0.5


def test_computing_forgets():
    metric = evaluate.load("accuracy")
    metric.add_batch([1], [1])
    assert metric.compute() == {"accuracy": 1.0}
    assert metric.compute([0], [1]) == {"accuracy": 0.0}
    with pytest.raises(DataError, match="nothing was added"):
        metric.compute()


def test_what_was_added_counts_with_what_is_given():
    metric = evaluate.load("accuracy")
    metric.add_batch([1], [1])
    assert metric.compute([0], [1]) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("predictions", "references"), [([1, 0, 1], [1, 0]), ([1], None), (None, [1]), (1, 1)]
)
def test_each_prediction_has_a_reference(predictions, references):
    """Two batches that are wrong in opposite ways would add up to one that fits."""
    metric = evaluate.load("accuracy")
    with pytest.raises(DataError, match="a reference for each prediction"):
        metric.add_batch(predictions, references)
    if predictions is not None or references is not None:
        with pytest.raises(DataError, match="a reference for each prediction"):
            metric.compute(predictions=predictions, references=references)


# -------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("name", "nearest"), [("acuracy", "accuracy"), ("glue/mrcp", "glue/mrpc")])
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=name) as caught:
        evaluate.load(name)
    assert repr(nearest) in str(caught.value)


def test_a_name_unlike_any_gets_the_list():
    with pytest.raises(ConfigError) as caught:
        evaluate.load("zzz")
    assert "'accuracy'" in str(caught.value) and "'f1'" in str(caught.value)


def test_a_plugin_brings_a_metric():
    class Plugin:
        @hookimpl
        def minift_metrics(self):
            return {"mine/first": lambda p, r: {"mine": float(len(p))}}

    set_default_manager(build_manager(None, plugins=[Plugin()]))
    try:
        metric = evaluate.load("mine", "first")
        assert repr(metric) == "EvaluationModule('mine/first')"
        assert metric.compute([1, 2, 3], [1, 2, 3]) == {"mine": 3.0}
    finally:
        set_default_manager(None)


def test_both_ways_to_import_it():
    import minift
    import minift.evaluate as module

    assert minift.evaluate is module is evaluate
