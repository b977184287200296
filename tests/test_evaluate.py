"""Metrics: edge cases, ways to feed them, names.

The numbers of scikit-learn and scipy: in test_golden.py, and live in parity/test_live_metrics.py.
"""

import math
from types import SimpleNamespace

import minift_glue
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minift import evaluate, hookimpl
from minift.errors import ArgumentError, ConfigError, DataError
from minift.plugins import build_manager, set_default_manager
from minift.training.evaluation import best_metric_of

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


@pytest.mark.parametrize("other", [2, -1, "x"])
@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
def test_binary_scores_of_other_classes_are_an_error(name, other):
    kind = str if isinstance(other, str) else int
    with pytest.raises(DataError, match="of two classes, one of them pos_label=1") as caught:
        compute(name, [kind(0), kind(1), other], [kind(0), kind(1), kind(1)])
    assert str(other) in str(caught.value)
    with pytest.raises(DataError, match="pos_label=1"):
        compute(name, [0, 2], [2, 2])
    assert evaluate.load(name).compute([0, 2], [2, 2], pos_label=0)[name] == 0.0


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews_correlation", "confusion_matrix"])
@pytest.mark.parametrize("other", [0.5, float("nan"), float("inf")])
def test_a_number_that_is_no_class_is_an_error(name, other):
    """Probabilities, most often: they would all count as wrong."""
    with pytest.raises(DataError, match="whole numbers"), np.errstate(invalid="ignore"):
        compute(name, [0.0, other], [0, 1])
    assert compute(name, [0.0, 1.0], [0, 1]) is not None


def test_strings_are_no_numbers():
    with pytest.raises(DataError, match="never equal"):
        compute("accuracy", ["1"], [1])


@pytest.mark.parametrize(
    ("average", "want"),
    [("micro", 0.5), ("macro", 7 / 18), ("weighted", 7 / 12), (None, [2 / 3, 1 / 2, 0])],
)
def test_averages(average, want):
    got = evaluate.load("f1").compute([0, 1, 1, 2], [0, 0, 1, 1], average=average)["f1"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "want"),
    [("f1_micro", 0.5), ("f1_macro", 7 / 18), ("f1_weighted", 7 / 12), ("recall_macro", 1 / 3)],
)
def test_averages_under_names_of_their_own(name, want):
    """As a Trainer and `--metric` take them; two of the three classes have rows."""
    assert compute(name, [0, 1, 1, 2], [0, 0, 1, 1]) == pytest.approx(want, abs=1e-12)


def test_the_advice_for_three_classes_names_metrics_that_take_them():
    with pytest.raises(DataError, match="of two classes") as caught:
        compute("f1", [0, 1, 2], [0, 1, 2])
    assert "f1_macro" in caught.value.do and compute("f1_macro", [0, 1, 2], [0, 1, 2]) == 1.0


def test_labels_choose_the_classes_and_their_order():
    f1 = evaluate.load("f1")
    got = f1.compute([0, 1, 1, 2], [0, 0, 1, 1], labels=[2, 0], average=None)["f1"]
    np.testing.assert_allclose(got, [0, 2 / 3], rtol=0, atol=1e-12)
    assert f1.compute([0, 1], [0, 1], labels=[0], pos_label=1) == {"f1": 1.0}  # binary: pos_label


@pytest.mark.parametrize(
    ("name", "predictions", "references", "value", "reason"),
    [
        ("f1", [0], [0], 0.0, "no true nor predicted"),
        ("precision", [0, 0], [0, 1], 0.0, "no predicted"),
        ("recall", [0, 1], [0, 0], 0.0, "no true"),
        ("pearsonr", [1, 1], [1, 2], math.nan, "constant"),
        ("spearmanr", [1, 2], [3, 3], math.nan, "constant"),
        ("spearmanr", [1], [1], math.nan, "constant"),
        ("spearmanr", [1, math.nan], [1, 2], math.nan, "not finite"),
        ("f1", [], [], math.nan, "no rows"),
    ],
)
def test_what_is_not_defined_is_said(name, predictions, references, value, reason):
    with pytest.warns(UserWarning, match=name) as said:
        got = compute(name, predictions, references)
    assert reason in str(said[0].message)
    assert got == value or (math.isnan(got) and math.isnan(value))


def test_a_correlation_of_one_row_is_an_error():
    for few in ([], [1.0]):
        with pytest.raises(DataError, match="two rows"):
            compute("pearsonr", few, few)


def test_correlations_of_what_is_not_finite():
    for value in (math.nan, math.inf):
        with pytest.warns(UserWarning, match="not finite"):
            assert math.isnan(compute("pearsonr", [1, value, 3], [1, 2, 3]))
    assert compute("spearmanr", [1, math.inf, 3], [1, 2, 3]) == pytest.approx(0.5)


def test_matthews_of_very_many_rows_does_not_overflow():
    """n^4 does not fit 64 bits; the same shares must give the same number."""
    p, r = np.tile([0, 1, 1, 0], 20_000), np.tile([0, 1, 0, 0], 20_000)
    few = compute("matthews_correlation", p[:4], r[:4])
    assert few == pytest.approx(1 / math.sqrt(3)) == compute("matthews_correlation", p, r)


def test_confusion_matrix():
    metric = evaluate.load("confusion_matrix")
    got = metric.compute([0, 2, 1, 0], [0, 1, 1, 2])["confusion_matrix"]
    assert got.dtype == np.int64 and got.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
    got = metric.compute(["b", "a"], ["b", "b"], labels=["b", "a"])["confusion_matrix"]
    assert got.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(DataError, match="any of these classes"):
        metric.compute([1], [1], labels=[5])


def test_exact_match():
    metric = evaluate.load("exact_match")
    p, r = ["Cat.", "dog 1", "a\0"], ["cat", "dog", "a"]
    assert metric.compute(p, r) == {"exact_match": 0.0}  # numpy's own strings drop the zero
    assert metric.compute(p, r, ignore_case=True, ignore_punctuation=True)["exact_match"] == 1 / 3
    assert metric.compute(["dog1"], ["dog"], ignore_numbers=True) == {"exact_match": 1.0}


@pytest.mark.parametrize("name", ["accuracy", "exact_match", "matthews_correlation"])
def test_a_score_of_nothing_is_not_a_number(name):
    assert math.isnan(compute(name, [], []))


def test_accuracy_of_strings():
    assert compute("accuracy", ["a", "b"], ["a", "c"]) == 0.5


def test_logits_are_not_classes():
    with pytest.raises(DataError, match="equally long sequences") as caught:
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


def test_tensors_of_a_kind_that_numpy_lacks():
    values = torch.tensor([1.0, 2.0, 4.0], dtype=torch.bfloat16)
    assert compute("pearsonr", values, [1, 2, 4]) == pytest.approx(1.0)


def test_both_spellings_of_adding():
    metric = evaluate.load("accuracy")
    metric.add(reference=1, prediction=1)
    metric.add_batch(references=[1, 0], predictions=[0, 0])
    assert metric.compute() == {"accuracy": 2 / 3}


@pytest.mark.parametrize(
    ("name", "option", "nearest"),
    [("f1", "averag", "'average'"), ("accuracy", "normalize", "none")],
)
def test_an_option_that_is_none_gets_the_nearest(name, option, nearest):
    with pytest.raises(ArgumentError, match=f"{name} has no option '{option}'") as caught:
        evaluate.load(name).compute([0], [0], **{option: 1})
    assert nearest in str(caught.value)
    with pytest.raises(ArgumentError, match="micro"):
        evaluate.load("f1").compute([0], [0], average="mean")


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
        def minift_register_metrics(self):
            return {"mine/first": lambda p, r: {"mine": float(len(p))}}

    set_default_manager(build_manager(None, plugins=[Plugin()]))
    try:
        metric = evaluate.load("mine", "first")
        assert metric.compute([1, 2, 3], [1, 2, 3]) == {"mine": 3.0}
    finally:
        set_default_manager(None)


def test_a_metric_says_what_its_numbers_mean():
    assert evaluate.find_metric("pearsonr").score_info["pearsonr"].low == -1.0
    assert set(evaluate.find_metric("glue/mrpc").score_info) == {"accuracy", "f1"}
    assert all(map(evaluate.higher_is_better, ("accuracy", "pearson", "spearmanr", "f1_macro")))


def test_a_family_of_metrics_is_asked_for_by_task():
    for family in ("glue", "super_glue"):
        with pytest.raises(ConfigError, match=f"no metric is called '{family}'") as caught:
            evaluate.load(family)
        assert f"{family}/" in str(caught.value)


def test_the_direction_is_the_metrics_own():
    """A name says nothing; the metric that gives the number does, and the arguments have it all."""
    error = evaluate.Metric(lambda p, r: {"wer": 0.5}, {"wer": evaluate.ScoreInfo(0, 9, False)})
    other = evaluate.Metric(lambda p, r: {"f1": 0.5}, {"f1": evaluate.ScoreInfo(0, 1, False)})

    class Plugin:
        @hookimpl
        def minift_register_metrics(self):
            return {"mine": error, "other": other, "plain": lambda p, r: {"plain": 1.0}}

    def direction(name, greater=None):
        args = SimpleNamespace(metric_for_best_model=name, greater_is_better=greater)
        return best_metric_of(args)

    set_default_manager(build_manager(None, plugins=[minift_glue, Plugin()]))
    try:
        assert direction("wer") == direction("eval_wer") == ("eval_wer", False)
        assert direction("wer", True) == ("eval_wer", True)
        assert direction("accuracy") == ("eval_accuracy", True)
        assert direction("f1") == ("eval_f1", True)  # two that differ: as the name says
        assert direction("plain") == ("eval_plain", True)
        assert direction(None) == direction("loss") == ("eval_loss", False)
        assert direction("brier") == ("eval_brier", False)
    finally:
        set_default_manager(None)


def test_both_ways_to_import_it():
    import minift
    import minift.evaluate as module

    assert minift.evaluate is module is evaluate
