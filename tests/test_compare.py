"""`minift compare`: intervals, the tests behind its verdicts, and the command on real runs."""

import functools
import json
import math
import shutil

import numpy as np
import pytest
from minift_compare import comparison, intervals
from minift_compare.intervals import estimate, wilson
from minift_glue.statistics import f1
from tiny import WORDS, make_model, write_csv

from minift import cli, hookimpl
from minift.evaluate import Metric, ScoreInfo, find_metric, ratio_of_sums
from minift.plugins import build_manager, set_default_manager

QUICK = ["--disable-tqdm", "true", "--device", "cpu", "--eval-strategy", "no"]
LABELS = np.random.default_rng(0).integers(0, 2, 400)


def answers(share, seed):
    """Answers to LABELS of which about that share is right."""
    right = np.random.default_rng(seed).random(len(LABELS)) < share
    return np.where(right, LABELS, 1 - LABELS)


def compared(name, first, second, labels=LABELS):
    return comparison.compare(name, (first, labels), (second, labels))


# ---------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson(hits, n, low, high):
    """The examples of Newcombe 1998 (Statistics in Medicine 17), table I, method 3."""
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)
    assert wilson(hits, n, 0.99)[1] - wilson(hits, n, 0.99)[0] > high - low


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_interval_for_each_number():
    p = answers(0.8, 0)
    mrpc = find_metric("glue/mrpc")
    got = estimate(mrpc, p, LABELS)
    assert {key: one.value for key, one in got.items()} == mrpc(p, LABELS)
    assert list(got) == ["accuracy", "f1"]
    assert got["accuracy"].interval == wilson(round(400 * got["accuracy"].value), 400)
    low, high = got["f1"].interval
    assert low < got["f1"].value < high and 0.05 < high - low < 0.15
    wide = estimate(mrpc, p, LABELS, confidence=0.999)["f1"].interval
    assert wide[0] < low and wide[1] > high


@pytest.mark.slow
def test_a_bootstrap_covers_as_often_as_it_says():
    """Pearson's r of 0.8 in samples of 60: 95 % would be 38 of 40, give or take 1.4."""
    rng = np.random.default_rng(3)
    metric, inside = find_metric("pearsonr"), 0
    for _ in range(40):
        x = rng.normal(size=60)
        y = 0.8 * x + 0.6 * rng.normal(size=60)
        low, high = estimate(metric, x, y)["pearsonr"].interval
        inside += low < 0.8 < high
    assert 34 <= inside <= 40


def test_an_interval_is_the_same_again_and_moves_no_generator():
    p, r = [0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0]
    state = np.random.get_state()[1].copy()
    first = estimate(find_metric("f1"), p, r)["f1"].interval
    assert first == estimate(find_metric("f1"), p, r)["f1"].interval
    assert (np.random.get_state()[1] == state).all()


def test_intervals_of_what_has_none():
    array = Metric(functools.partial(f1, average=None))
    assert estimate(array, [0, 1], [0, 1]) == {}
    assert estimate(find_metric("accuracy"), [], []) == {}
    with pytest.warns(UserWarning, match="constant"):
        got = estimate(find_metric("pearsonr"), [1, 1], [1, 2])["pearsonr"]
    assert all(map(math.isnan, got.interval))


def test_groups_are_drawn_as_wholes():
    """40 groups whose rows are alike carry the information of 40, not of 4,000."""

    def by_group(predictions, references):
        right = (predictions == references).reshape(-1, 100)
        return {"share": (right.sum(1) * 1.0, np.full(len(right), 100.0))}

    metric = Metric(lambda p, r: ratio_of_sums(by_group(p, r)), {}, by_group)
    rows = np.repeat(np.arange(40) % 2, 100)
    low, high = estimate(metric, rows, np.zeros(4000))["share"].interval
    assert 0.25 < high - low < 0.35


def test_multirc_and_record_draw_questions():
    rng = np.random.default_rng(0)
    right = [int(i // 50 % 2) for i in range(1000)]  # 20 questions, all rows of each alike
    keys = [{"paragraph": i // 50, "question": 0, "answer": i} for i in range(1000)]
    order = rng.permutation(1000)
    got = estimate(
        find_metric("super_glue/multirc"),
        [{"idx": keys[i], "prediction": 1} for i in order],
        [right[i] for i in order],
    )
    assert got["exact_match"].interval == wilson(10, 20)
    low, high = got["f1_a"].interval
    assert high - low > 0.2  # of 1,000 rows by themselves it would be 0.05
    ids = [{"passage": 0, "query": i} for i in range(3)]
    texts = [("The Cat", ["a dog", "cat."]), ("big cat", ["cat"]), ("bird", ["fish", "dog"])]
    predictions = [{"idx": i, "prediction_text": p} for i, (p, _) in zip(ids, texts, strict=True)]
    references = [{"idx": i, "answers": a} for i, (_, a) in zip(ids, texts, strict=True)]
    assert "f1" in estimate(find_metric("super_glue/record"), predictions, references)


# ------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 9, 22 / 1024),
        (9, 1, 22 / 1024),
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
    ],
)
def test_mcnemar_by_hand(only_a, only_b, p):
    first = np.array([True] * only_a + [False] * only_b + [True, False])
    second = np.array([False] * only_a + [True] * only_b + [True, False])
    assert comparison.mcnemar(first, second) == pytest.approx(p, abs=1e-15)


def test_mcnemar_of_very_many_rows():
    n = 20_000
    first = np.arange(n) % 2 == 0
    assert comparison.mcnemar(first, ~first) == 1.0
    assert 0 < comparison.mcnemar(np.arange(n) < 9_800, np.arange(n) >= 9_800) < 0.01


@pytest.mark.parametrize(
    ("a", "b", "verdict"), [(0.6, 0.9, "better"), (0.9, 0.6, "worse"), (0.8, 0.805, "noise")]
)
@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews_correlation"])
def test_verdicts(name, a, b, verdict):
    found = compared(name, answers(a, 1), answers(b, 2))[name]
    assert found["verdict"] == verdict
    low, high = found["difference_interval"]
    assert found["difference"] == pytest.approx(found["b"] - found["a"])
    assert low < found["difference"] < high
    assert found["a_interval"][0] < found["a"] < found["a_interval"][1]
    assert (found["p"] is None) == (name != "accuracy")
    if found["p"] is not None:
        assert (found["p"] < 0.05) == (verdict != "noise")


def test_the_test_is_paired():
    """B is A with 12 more rows right: clear as a pair, nothing as two samples of 400."""
    first = answers(0.8, 1)
    second = first.copy()
    second[np.flatnonzero(first != LABELS)[:12]] = LABELS[first != LABELS][:12]
    for name in ("accuracy", "f1"):
        found = compared(name, first, second)[name]
        assert found["verdict"] == "better"
        assert found["a_interval"][1] > found["b"]


def test_a_model_is_not_better_than_itself():
    found = compared("glue/mrpc", answers(0.8, 1), answers(0.8, 1))
    for score in found.values():
        assert score["difference"] == 0 and score["difference_interval"] == (0, 0)
        assert score["verdict"] == "noise"


@pytest.mark.slow
def test_noise_is_taken_for_more_no_oftener_than_it_says(monkeypatch):
    """20 pairs of equally good models: 1 would be called different; 4 or more come 1 in 60."""
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    called = 0
    for seed in range(20):
        found = compared("f1", answers(0.8, 2 * seed), answers(0.8, 2 * seed + 1))
        called += found["f1"]["verdict"] != "noise"
    assert called <= 3


def test_numbers_instead_of_classes():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    near, far = truth + 0.3 * rng.normal(size=200), truth + rng.normal(size=200)
    found = compared("glue/stsb", far, near, truth)
    assert {key: score["verdict"] for key, score in found.items()} == {
        "pearson": "better",
        "spearmanr": "better",
    }


def test_groups_of_rows_are_drawn_as_wholes():
    """MultiRC: 100 questions of four answers; B has every one of a question right, or none."""
    keys = [{"paragraph": 0, "question": i // 4, "answer": i} for i in range(400)]

    def said(values):
        return [{"idx": k, "prediction": int(v)} for k, v in zip(keys, values, strict=True)]

    by_question = np.repeat(np.random.default_rng(1).random(100) < 0.8, 4)
    whole = np.where(by_question, LABELS, 1 - LABELS)
    found = compared("super_glue/multirc", said(answers(0.8, 1)), said(whole))
    assert found["exact_match"]["verdict"] == "better" and found["exact_match"]["p"] is None
    low, high = found["f1_a"]["b_interval"]
    rows = compared("f1", whole, whole)["f1"]["b_interval"]
    assert high - low > 1.5 * (rows[1] - rows[0])  # 100 draws, not 400


def test_less_is_better_where_the_metric_says_so():
    def distance(predictions, references):
        return {"distance": float(np.abs(predictions - references).mean())}

    class Plugin:
        @hookimpl
        def minift_register_metrics(self):
            return {"distance": Metric(distance, {"distance": ScoreInfo(0, 1, False)})}

    set_default_manager(build_manager(None, plugins=[Plugin()]))
    found = compared("distance", answers(0.6, 1), answers(0.9, 2))["distance"]
    assert found["difference"] < 0 and found["verdict"] == "better"


# -------------------------------------------------------------------------------------- the command


def make_texts(n, seed):
    rng = np.random.default_rng(seed)
    rows = {"text": [], "label": []}
    for i in range(n):
        words = WORDS[:20] if i % 2 else WORDS[20:]
        rows["text"].append(" ".join(rng.choice(words, size=rng.integers(2, 9))))
        rows["label"].append(i % 2)
    return rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same rows: one learns nothing, one learns which words are of which class."""
    folder = tmp_path_factory.mktemp("runs")
    make_model(folder / "model")
    for i, split in enumerate(("train", "validation")):
        write_csv(folder / f"{split}.csv", make_texts(120, seed=i))
    for name, rate in (("a", "0"), ("b", "3e-3")):
        train(folder, folder / name, "--learning-rate", rate)
    return folder


def train(folder, out, *words):
    files = ["--train-file", str(folder / "train.csv")]
    files += ["--validation-file", str(folder / "validation.csv")]
    words = [*files, "--model", str(folder / "model"), *QUICK, *words]
    assert cli.main(["train", "--output-dir", str(out), *words]) == 0


def compare(capsys, *words, code=0):
    capsys.readouterr()
    assert cli.main(["compare", *map(str, words), "--device", "cpu"]) == code
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


def test_two_runs(runs, capsys):
    found = json.loads(compare(capsys, runs / "a", runs / "b", "--json"))
    assert found["rows"] == 120 and found["split"] == "validation"
    assert list(found["scores"]) == ["accuracy", "f1"]
    for side in "ab":  # what `minift eval` says of each
        assert cli.main(["eval", str(runs / side), "--device", "cpu"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert found["scores"]["accuracy"][side] == said["validation_accuracy"]
        assert found["scores"]["f1"][side] == said["validation_f1"]
    assert found["scores"]["accuracy"]["verdict"] == "better"
    back = json.loads(compare(capsys, runs / "b", runs / "a", "--json"))
    assert back["scores"]["accuracy"]["verdict"] == "worse"
    assert back["scores"]["accuracy"]["p"] == found["scores"]["accuracy"]["p"] < 0.05


def test_what_is_printed(runs, capsys):
    said = compare(capsys, runs / "a", runs / "b", "--metric", "accuracy").splitlines()
    assert said[2] == "120 rows of the split validation"
    assert said[-1].startswith("accuracy: B is better (p ") and len(said) == 7
    said = compare(capsys, runs / "b", runs / "b", "--split", "train")
    assert "of the split train" in said and "accuracy: noise (p 1)" in said
    assert said.endswith("f1: noise\n")


def test_other_rows_are_refused(runs, capsys, tmp_path):
    shutil.copytree(runs / "model", tmp_path / "model")
    shutil.copy(runs / "train.csv", tmp_path / "train.csv")
    rows = make_texts(120, seed=1)
    rows["label"][17] = 1 - rows["label"][17]
    write_csv(tmp_path / "validation.csv", rows)
    train(tmp_path, tmp_path / "c", "--max-steps", "1")
    said = compare(capsys, runs / "a", tmp_path / "c", code=2)
    assert "row 17 is the first to differ in 'labels'" in said and "--dataset" in said
    write_csv(tmp_path / "validation.csv", make_texts(119, seed=1))
    said = compare(capsys, runs / "a", tmp_path / "c", code=2)
    assert "120 rows of validation and 119 of validation" in said
    (tmp_path / "both").mkdir()
    write_csv(tmp_path / "both" / "validation.csv", make_texts(30, seed=5))
    said = compare(capsys, runs / "a", tmp_path / "c", "--dataset", tmp_path / "both")
    assert "30 rows of the split validation" in said


def test_other_classes_are_refused(runs, capsys, tmp_path):
    train(runs, tmp_path / "named", "--max-steps", "1", "--label-names", "no,yes")
    said = compare(capsys, runs / "a", tmp_path / "named", code=2)
    assert "other classes" in said and "'no', 'yes'" in said


def test_no_data_is_refused(runs, capsys):
    assert "no data was given" in compare(capsys, runs / "model", runs / "model", code=2)
