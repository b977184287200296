"""The metrics of GLUE's and SuperGLUE's tasks, with the names and definitions of `evaluate`'s.

Where the benchmark's own definition differs, `official=True` takes that. Correlations are computed
in float64, where the peer first rounds to float32: the eighth digit may differ.
"""

import re
import string
import warnings
from collections import Counter
from typing import Any

import numpy as np

from minift import evaluate
from minift.errors import DataError
from minift.evaluate import GroupRatios, Metric, ScoreInfo
from minift_glue import statistics

PROPORTION, CORRELATION = ScoreInfo(is_proportion=True), ScoreInfo(-1.0)
NO_ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def check_labels(references: Any) -> None:
    """-1 hides a label, as in test rows, and every answer to it would count as wrong."""
    if hidden := int((evaluate.as_array(references) == -1).sum()):
        what = "rows without a label cannot be scored"
        raise DataError(what, got=f"{hidden} of {len(references)} are labelled -1")


def accuracy(predictions: Any, references: Any) -> dict[str, float]:
    """Most tasks."""
    check_labels(references)
    return statistics.accuracy(predictions, references)


def matthews_correlation(predictions: Any, references: Any) -> dict[str, float]:
    """CoLA, AX and AX-b."""
    check_labels(references)
    return statistics.matthews_correlation(predictions, references)


def accuracy_and_f1(predictions: Any, references: Any) -> dict[str, float]:
    """MRPC and QQP: F1 is that of class 1, "equivalent"."""
    return {**accuracy(predictions, references), **statistics.f1(predictions, references)}


def pearson_and_spearman(predictions: Any, references: Any) -> dict[str, float]:
    """STS-B: similarities from 0 to 5 as they come from the model, not clipped."""
    linear = statistics.pearsonr(predictions, references)["pearsonr"]
    return {"pearson": linear, **statistics.spearmanr(predictions, references)}


def cb(predictions: Any, references: Any, official: bool = False) -> dict[str, Any]:
    """CommitmentBank: the mean of F1 over the classes that occur; officially over all three."""
    labels = [0, 1, 2] if official else None
    scores = accuracy(predictions, references)
    return scores | statistics.f1(predictions, references, labels=labels, average="macro")


def multirc(predictions: Any, references: Any, official: bool = False) -> dict[str, float]:
    """MultiRC: each answer of a question is right or wrong; see `multirc_ratios`."""
    return evaluate.ratio_of_sums(multirc_ratios(predictions, references, official))


def multirc_ratios(predictions: Any, references: Any, official: bool = False) -> GroupRatios:
    """By question, over its answers.

    Args:
        predictions: [{"idx": {"paragraph", "question", "answer"}, "prediction": 0 or 1}].
        references: the labels of these answers.
        official: whether f1_m takes the F1 of class 1 (jiant); else the mean of that over the
            classes that occur in the question (evaluate).

    Returns:
        exact_match: the share of questions with no wrong answer; f1_m: the mean of F1 over
        questions; f1_a: F1 of class 1 over all answers.
    """
    ids = [(p["idx"]["paragraph"], p["idx"]["question"]) for p in predictions]
    numbers = {question: number for number, question in enumerate(dict.fromkeys(ids))}
    question = np.array([numbers[i] for i in ids], dtype=np.int64)
    given, true = statistics.paired([p["prediction"] for p in predictions], references)
    if not np.isin([given, true], [0, 1]).all():
        raise DataError("an answer of MultiRC is 0 or 1, wrong or right")
    right = np.bincount(question, given == true)
    size, one = np.bincount(question), np.ones(len(numbers))
    hits = {c: np.bincount(question, (given == c) & (true == c)) for c in (0, 1)}
    marked = {c: np.bincount(question, (given == c) * 1.0 + (true == c)) for c in (0, 1)}
    scores = {c: 2 * hits[c] / np.maximum(marked[c], 1) for c in (0, 1)}
    occurring = (marked[0] > 0) * 1.0 + (marked[1] > 0)
    mean = scores[1] if official else (scores[0] + scores[1]) / occurring
    return {
        "exact_match": ((right == size) * 1.0, one),
        "f1_m": (mean, one),
        "f1_a": (2 * hits[1], marked[1]),
    }


def record(predictions: Any, references: Any) -> dict[str, float]:
    """ReCoRD: an entity for each query; see `record_ratios`."""
    return evaluate.ratio_of_sums(record_ratios(predictions, references))


def record_ratios(predictions: Any, references: Any) -> GroupRatios:
    """By query: whether the text is one of the answers, and F1 of its words with the nearest.

    Args:
        predictions: [{"idx": {"passage", "query"}, "prediction_text": str}]; a query without one
            scores 0.
        references: [{"idx": {"passage", "query"}, "answers": [str, ...]}].
    """
    given = {p["idx"]["query"]: plain_words(p["prediction_text"]) for p in predictions}
    scores = np.zeros((2, len(references)))
    for i, reference in enumerate(references):
        query = reference["idx"]["query"]
        if query not in given:
            warnings.warn(f"query {query} has no prediction and scores 0")
            continue
        if not len(reference["answers"]):
            raise DataError(f"query {query} of ReCoRD has no answers to compare with")
        answers = [plain_words(text) for text in reference["answers"]]
        scores[0, i] = given[query] in answers
        scores[1, i] = max(word_f1(given[query], answer) for answer in answers)
    one = np.ones(len(references))
    return {"exact_match": (scores[0], one), "f1": (scores[1], one)}


def plain_words(text: str) -> list[str]:
    """Lower case, no punctuation, no articles: SQuAD's normalisation (Rajpurkar et al. 2016)."""
    return NO_ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()


def word_f1(first: list[str], second: list[str]) -> float:
    shared = sum((Counter(first) & Counter(second)).values())
    return 2 * shared / (len(first) + len(second)) if shared else 0.0


def by_name() -> dict[str, Metric]:
    """Return {"glue/mrpc": Metric, ...}: each config of `evaluate`'s glue, super_glue and ax."""
    questions = {"exact_match": PROPORTION, "f1_m": ScoreInfo(), "f1_a": ScoreInfo()}
    queries = {"exact_match": PROPORTION, "f1": ScoreInfo()}
    two = {"accuracy": PROPORTION, "f1": ScoreInfo()}
    both = {"pearson": CORRELATION, "spearmanr": CORRELATION}
    share = Metric(accuracy, {"accuracy": PROPORTION})
    metrics = [
        ("sst2 mnli mnli_mismatched mnli_matched qnli rte wnli hans", "glue", share),
        ("boolq copa rte wic wsc wsc.fixed axg", "super_glue", share),
        ("cola ax", "glue", Metric(matthews_correlation, {"matthews_correlation": CORRELATION})),
        ("axb", "super_glue", Metric(matthews_correlation, {"matthews_correlation": CORRELATION})),
        ("mrpc qqp", "glue", Metric(accuracy_and_f1, two)),
        ("stsb", "glue", Metric(pearson_and_spearman, both)),
        ("cb", "super_glue", Metric(cb, two)),
        ("multirc", "super_glue", Metric(multirc, questions, multirc_ratios)),
        ("record", "super_glue", Metric(record, queries, record_ratios)),
    ]
    return {f"{family}/{name}": one for names, family, one in metrics for name in names.split()}
