"""Metrics against scikit-learn and scipy, which the peer's metrics call: equal to 1e-12.

The peer's own modules are scripts that it downloads, so what they do with these calls is written
out here: sums over questions (MultiRC), texts without articles (ReCoRD), float32 (STS-B).
"""

import math
import re
import string
import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minift_compare.comparison import mcnemar
from minift_compare.intervals import wilson
from scipy import stats
from sklearn import metrics as sk

from minift import evaluate
from minift.errors import DataError

NEAR = 1e-12
AVERAGES = ("micro", "macro", "weighted", None)
SCORES = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}


def two_lists(values, least=1):
    """Predictions and references of one length."""
    row = st.tuples(values, values)
    return st.lists(row, min_size=least, max_size=60).map(
        lambda rows: tuple(zip(*rows, strict=True))
    )


INTEGERS = two_lists(st.integers(-2, 6))
FEW = two_lists(st.integers(0, 1))
TEXTS = two_lists(st.sampled_from(["a", "b", "c d", ""]))
CLASSES = st.one_of(INTEGERS, FEW, TEXTS)
FLOATS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))
NUMBERS = st.one_of(two_lists(FLOATS, 2), two_lists(st.integers(0, 5), 2))


@pytest.fixture(autouse=True)
def quiet():
    """Both sides warn of what is not defined; test_evaluate.py holds what minift says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def both(name, predictions, references, peer, **options):
    """(minift's value, the peer's), or the type of the error that each raises."""
    found = []
    for call in (
        lambda: evaluate.load(name).compute(predictions, references, **options)[name],
        lambda: peer(references, predictions, **options),
    ):
        try:
            found.append(call())
        except ValueError:
            found.append(ValueError)
    return found


def assert_same(got, want, near=NEAR):
    if want is ValueError or got is ValueError:
        assert got is want
    else:
        np.testing.assert_allclose(got, want, rtol=0, atol=near, equal_nan=True)


# --------------------------------------------------------------------------------------- of classes


@given(CLASSES)
def test_accuracy(rows):
    assert_same(*both("accuracy", *rows, sk.accuracy_score))


@pytest.mark.parametrize("name", SCORES)
@given(rows=CLASSES, average=st.sampled_from(AVERAGES))
def test_scores_of_classes(name, rows, average):
    assert_same(*both(name, *rows, SCORES[name], average=average))


@pytest.mark.parametrize("name", SCORES)
@given(rows=st.one_of(FEW, INTEGERS), positive=st.integers(-1, 2))
def test_binary_scores(name, rows, positive):
    """Also which classes are an error."""
    assert_same(*both(name, *rows, SCORES[name], pos_label=positive))


@pytest.mark.parametrize("name", SCORES)
@given(
    rows=INTEGERS,
    average=st.sampled_from(AVERAGES),
    labels=st.lists(st.integers(-3, 8), min_size=1, max_size=6, unique=True),
)
def test_scores_of_chosen_classes(name, rows, average, labels):
    assert_same(*both(name, *rows, SCORES[name], average=average, labels=labels))


@given(CLASSES)
def test_matthews(rows):
    assert_same(*both("matthews_correlation", *rows, sk.matthews_corrcoef))


@given(CLASSES)
def test_confusion(rows):
    assert_same(*both("confusion_matrix", *rows, sk.confusion_matrix))


@given(INTEGERS, st.lists(st.integers(-3, 8), min_size=1, max_size=6, unique=True))
def test_confusion_of_chosen_classes(rows, labels):
    assert_same(*both("confusion_matrix", *rows, sk.confusion_matrix, labels=labels))


@pytest.mark.parametrize("wrong", [[0.5, 1.0], [float("nan"), 1.0], [float("inf"), 0.0]])
def test_what_is_no_class_is_an_error_to_both(wrong):
    peers = SCORES | {"accuracy": sk.accuracy_score, "matthews_correlation": sk.matthews_corrcoef}
    for name, peer in peers.items():
        assert both(name, wrong, [0, 1], peer) == [ValueError, ValueError]


# --------------------------------------------------------------------------------------- of numbers


@given(NUMBERS)
def test_pearson(rows):
    """Where scipy itself warns of rounding (nearly constant), no digit is asked for."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        want = stats.pearsonr(*rows).statistic
    rounded = any(issubclass(w.category, stats.NearConstantInputWarning) for w in said)
    got = evaluate.load("pearsonr").compute(*rows)["pearsonr"]
    assert_same(got, want, near=1.0 if rounded else NEAR * condition(rows))


def condition(rows):
    """How much larger the values are than their spread: the digits that subtracting costs."""
    sizes = [np.abs(x).max() / max(np.std(x), 1e-300) for x in map(np.asarray, rows)]
    return max(1.0, *sizes) if all(np.ptp(x) > 0 for x in rows) else 1.0


@given(NUMBERS)
def test_spearman(rows):
    got = evaluate.load("spearmanr").compute(*rows)["spearmanr"]
    assert_same(got, stats.spearmanr(*rows).statistic)


@pytest.mark.parametrize(
    "values",
    [[1, 1, 1], [0.1, 0.1, 0.1], [1, math.nan, 3], [1, math.inf, 3], [1e300, -1e300, 0],
     [1e-200, 2e-200, 0], [5e-324, 0, 0], [True, False, True], [1, 1, 2]],
    ids=str,
)  # fmt: skip
def test_correlations_at_the_edges(values):
    for name, peer in (("pearsonr", stats.pearsonr), ("spearmanr", stats.spearmanr)):
        got = evaluate.load(name).compute(values, [1, 2, 3])[name]
        assert_same(got, peer(values, [1, 2, 3]).statistic)


def test_correlations_of_few_rows():
    for few in ([], [1.0]):
        with pytest.raises(ValueError):
            stats.pearsonr(few, few)
        with pytest.raises(DataError):
            evaluate.load("pearsonr").compute(few, few)
        got = evaluate.load("spearmanr").compute(few, few)["spearmanr"]
        assert_same(got, stats.spearmanr(few, few).statistic)
    assert evaluate.load("pearsonr").compute([1, 2], [4, 3])["pearsonr"] == pytest.approx(-1)


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson(n, share, confidence):
    hits = round(n * share)
    want = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert wilson(hits, n, confidence) == pytest.approx(tuple(want), abs=1e-12)


@given(two_lists(st.booleans()))
def test_mcnemar(rows):
    """Of the rows that one model alone has right, half are A's: a binomial test."""
    first, second = map(np.array, rows)
    alone = int((first > second).sum()), int((first < second).sum())
    want = stats.binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
    assert mcnemar(first, second) == pytest.approx(want, abs=NEAR)


# ---------------------------------------------------------------------------- of GLUE and SuperGLUE


@given(FEW)
def test_mrpc_and_qqp(rows):
    for name in ("mrpc", "qqp"):
        got = evaluate.load("glue", name).compute(*rows)
        want = {"accuracy": sk.accuracy_score(rows[1], rows[0])}
        want["f1"] = sk.f1_score(rows[1], rows[0])
        assert got == pytest.approx(want, abs=NEAR)


@given(two_lists(st.integers(0, 2)))
def test_one_number_of_glue_and_super_glue(rows):
    for name in ("sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "hans"):
        got = evaluate.load("glue", name).compute(*rows)
        assert got == {"accuracy": pytest.approx(sk.accuracy_score(rows[1], rows[0]), abs=NEAR)}
    for name in ("boolq", "copa", "rte", "wic", "wsc", "wsc.fixed", "axg"):
        got = evaluate.load("super_glue", name).compute(*rows)
        assert got == {"accuracy": pytest.approx(sk.accuracy_score(rows[1], rows[0]), abs=NEAR)}
    for name in (("glue", "cola"), ("glue", "ax"), ("super_glue", "axb")):
        phi = pytest.approx(sk.matthews_corrcoef(rows[1], rows[0]), abs=NEAR)
        assert evaluate.load(*name).compute(*rows) == {"matthews_correlation": phi}


def test_stsb():
    """float64 to 1e-12; the peer's float32 to 1e-7."""
    rng = np.random.default_rng(0)
    references = np.round(rng.uniform(0, 5, 1500), 2)
    predictions = (references + rng.normal(size=1500)).astype(np.float32)
    got = evaluate.load("glue", "stsb").compute(predictions, references)
    for kind, near in ((np.float64, NEAR), (np.float32, 1e-7)):
        p, r = predictions.astype(kind), references.astype(kind)
        assert got == {
            "pearson": pytest.approx(float(stats.pearsonr(p, r).statistic), abs=near),
            "spearmanr": pytest.approx(float(stats.spearmanr(p, r).statistic), abs=near),
        }


@given(two_lists(st.integers(0, 2)))
def test_cb(rows):
    metric = evaluate.load("super_glue", "cb")
    want = {"accuracy": sk.accuracy_score(rows[1], rows[0])}
    want["f1"] = sk.f1_score(rows[1], rows[0], average="macro")
    assert metric.compute(*rows) == pytest.approx(want, abs=NEAR)
    each = [sk.f1_score(np.equal(rows[1], c), np.equal(rows[0], c)) for c in range(3)]
    official = metric.compute(*rows, official=True)["f1"]
    assert official == pytest.approx(sum(each) / 3, abs=NEAR)


ANSWERS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


@given(ANSWERS, st.booleans())
def test_multirc(rows, official):
    questions = defaultdict(list)
    for paragraph, question, p, r in rows:
        questions[paragraph, question].append((p, r))
    f1s, right = [], []
    for answers in questions.values():
        p, r = zip(*answers, strict=True)
        f1s.append(sk.f1_score(r, p, **({} if official else {"average": "macro"})))
        right.append(p == r)
    p, r = [row[2] for row in rows], [row[3] for row in rows]
    want = {"exact_match": np.mean(right), "f1_m": np.mean(f1s), "f1_a": sk.f1_score(r, p)}
    predictions = [
        {"idx": {"paragraph": a, "question": q, "answer": i}, "prediction": one}
        for i, (a, q, one, _) in enumerate(rows)
    ]
    metric = evaluate.load("super_glue", "multirc")
    got = metric.compute(predictions=predictions, references=r, official=official)
    assert got == pytest.approx(want, abs=NEAR)
    for row, true in zip(predictions, r, strict=True):
        metric.add(prediction=row, reference=true)
    assert metric.compute(official=official) == got


PHRASES = st.lists(st.sampled_from(["A", "the", "cat", "Cat,", "dogs", "an", "ant.", "  "])).map(
    " ".join
)
QUERIES = st.lists(
    st.tuples(PHRASES, st.lists(PHRASES, min_size=1, max_size=3)), min_size=1, max_size=20
)


def plain(text):
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def word_f1(prediction, truth):
    p, t = plain(prediction).split(), plain(truth).split()
    same = sum((Counter(p) & Counter(t)).values())
    if same == 0:
        return 0
    precision, recall = same / len(p), same / len(t)
    return 2 * precision * recall / (precision + recall)


@given(QUERIES)
def test_record(queries):
    exact = [max(plain(p) == plain(a) for a in answers) for p, answers in queries]
    f1s = [max(word_f1(p, a) for a in answers) for p, answers in queries]
    ids = [{"passage": i // 2, "query": i} for i in range(len(queries))]
    predictions = [{"idx": i, "prediction_text": p} for i, (p, _) in zip(ids, queries, strict=True)]
    references = [{"idx": i, "answers": a} for i, (_, a) in zip(ids, queries, strict=True)]
    got = evaluate.load("super_glue", "record").compute(predictions, references)
    want = {"exact_match": np.mean(exact), "f1": np.mean(f1s)}
    assert got == pytest.approx(want, abs=NEAR)


@given(TEXTS, st.booleans(), st.booleans())
@settings(max_examples=50)
def test_exact_match(rows, ignore_case, ignore_punctuation):
    def shown(text):
        text = text.lower() if ignore_case else text
        kept = (c for c in text if not (ignore_punctuation and c in string.punctuation))
        return "".join(kept)

    want = np.mean([shown(p) == shown(r) for p, r in zip(*rows, strict=True)])
    options = {"ignore_case": ignore_case, "ignore_punctuation": ignore_punctuation}
    got = evaluate.load("exact_match").compute(*rows, **options)["exact_match"]
    assert got == pytest.approx(want, abs=NEAR)
