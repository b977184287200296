"""The metrics of GLUE's and SuperGLUE's tasks, by hand; the rest: parity/test_live_metrics.py."""

import numpy as np
import pytest

from minift import evaluate
from minift.errors import DataError

GLUE = "sst2 mnli mnli_mismatched mnli_matched cola stsb mrpc qqp qnli rte wnli hans ax"
SUPER = "boolq cb copa multirc record rte wic wsc wsc.fixed axb axg"


def answers(rows):
    """MultiRC's inputs from (paragraph, question, prediction, label)."""
    predictions = [
        {"idx": {"paragraph": a, "question": q, "answer": i}, "prediction": p}
        for i, (a, q, p, _) in enumerate(rows)
    ]
    return predictions, [row[3] for row in rows]


def queries(*rows):
    """ReCoRD's inputs from (prediction or None, answers)."""
    ids = [{"passage": 0, "query": i} for i in range(len(rows))]
    pairs = list(zip(ids, rows, strict=True))
    predictions = [{"idx": i, "prediction_text": p} for i, (p, _) in pairs if p is not None]
    return predictions, [{"idx": i, "answers": a} for i, (_, a) in pairs]


@pytest.mark.parametrize("family", [("glue", GLUE), ("super_glue", SUPER)], ids=lambda f: f[0])
def test_every_task_has_its_metric(family):
    for name in family[1].split():
        metric = evaluate.load(family[0], name)
        assert metric.metric.score_info, name
        if name not in ("multirc", "record"):
            got = metric.compute([0, 1, 1, 0], [0, 1, 0, 0])
            assert set(got) == set(metric.metric.score_info), name


def test_keys():
    keys = {name: set(evaluate.load("glue", name).metric.score_info) for name in GLUE.split()}
    assert keys["mrpc"] == keys["qqp"] == {"accuracy", "f1"}
    assert keys["stsb"] == {"pearson", "spearmanr"}
    assert keys["cola"] == keys["ax"] == {"matthews_correlation"}
    for name in ("mrpc", "qqp", "stsb", "cola", "ax"):
        del keys[name]
    assert set(map(frozenset, keys.values())) == {frozenset({"accuracy"})}


def test_cb_over_classes_that_occur_or_over_all_three():
    metric = evaluate.load("super_glue", "cb")
    got = metric.compute([0, 1, 1], [0, 1, 0])
    assert got == pytest.approx({"accuracy": 2 / 3, "f1": 2 / 3})
    with pytest.warns(UserWarning, match="no true nor predicted"):
        assert metric.compute([0, 1, 1], [0, 1, 0], official=True)["f1"] == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    ("gold", "given", "macro", "official"),
    [((1, 0), (1, 1), 1 / 3, 2 / 3), ((0, 0), (0, 0), 1.0, 0.0), ((1, 1), (1, 1), 1.0, 1.0)],
)
def test_multirc_of_one_question(gold, given, macro, official):
    rows = [(0, 0, p, r) for p, r in zip(given, gold, strict=True)]
    metric = evaluate.load("super_glue", "multirc")
    assert metric.compute(*answers(rows))["f1_m"] == pytest.approx(macro)
    assert metric.compute(*answers(rows), official=True)["f1_m"] == pytest.approx(official)


def test_multirc_by_question():
    """Question 0 stands in two paragraphs, and its answers need not be neighbours."""
    rows = [(0, 0, 1, 1), (1, 0, 0, 1), (0, 0, 0, 0), (1, 0, 1, 1), (0, 1, 1, 0)]
    got = evaluate.load("super_glue", "multirc").compute(*answers(rows))
    want = {"exact_match": 1 / 3, "f1_m": (1 + 1 / 3 + 0) / 3, "f1_a": 2 * 2 / (3 + 3)}
    assert got == pytest.approx(want)


@pytest.mark.parametrize("wrong", [2, -1])
def test_multirc_answers_are_right_or_wrong(wrong):
    """Test rows are labelled -1: they must not be scored."""
    with pytest.raises(DataError, match="0 or 1"):
        evaluate.load("super_glue", "multirc").compute(*answers([(0, 0, 1, wrong)]))


@pytest.mark.parametrize("family", [("glue", GLUE), ("super_glue", SUPER)], ids=lambda f: f[0])
def test_hidden_labels_are_not_scored(family):
    """As classes they would count as wrong, also one among others, or where the answer is -1."""
    for name in set(family[1].split()) - {"stsb", "multirc", "record"}:
        for given in ([0, 1, 1], [0, 1, -1]):
            with pytest.raises(DataError, match="without a label") as error:
                evaluate.load(family[0], name).compute(given, [0, 1, -1])
            assert "1 of 3" in str(error.value)
    assert evaluate.load("accuracy").compute([1, -1], [1, -1]) == {"accuracy": 1.0}


def test_record():
    metric = evaluate.load("super_glue", "record")
    rows = [("The Cat", ["a dog", "cat."]), ("big cat", ["cat"]), ("bird", ["fish", "dog"])]
    got = metric.compute(*queries(*rows))
    assert got == pytest.approx({"exact_match": 1 / 3, "f1": (1 + 2 / 3 + 0) / 3})


def test_record_of_a_query_without_a_prediction_or_without_answers():
    metric = evaluate.find_metric("super_glue/record")
    with pytest.warns(UserWarning, match="query 1 has no prediction"):
        got = metric(*queries(("cat", ["cat"]), (None, ["dog"])))
    assert got == {"exact_match": 0.5, "f1": 0.5}
    with pytest.raises(DataError, match="no answers"):
        metric(*queries(("cat", [])))


def test_correlations_are_in_float64():
    """The peer rounds to float32 first, so that these two would be one number."""
    base = 1.0 + np.arange(3) * 1e-12
    got = evaluate.load("glue", "stsb").compute(base, [1.0, 2.0, 3.0])
    assert got["spearmanr"] == pytest.approx(1.0) and got["pearson"] > 0.99


def test_the_plugin_is_light():
    """numpy and the metrics are imported where something is measured."""
    import subprocess
    import sys

    code = "import sys, minift_glue; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
