"""`pipeline("text-classification")` beside the peer's: the form of every answer, and its scores.

An empty second text is left out: to the peer it is none. Long texts are cut without being told to.
"""

import pytest
import torch
import transformers
from live import require_minilm

import minift

NAMES = {0: "different", 1: "equal", 2: "unsure"}
TEXT = "the cat sat on the mat"
PAIR = {"text": "the cat sat on the mat", "text_pair": "a cat is sitting on a mat."}
INPUTS = {
    "text": TEXT,
    "list of one": [TEXT],
    "list": [TEXT, "", "dogs bark; cats do not!", "a " * 40],
    "pair": PAIR,
    "text in a dict": {"text": TEXT},
    "list of one pair": [PAIR],
    "list of pairs": [PAIR, {"text": "no", "text_pair": "yes " * 30}, PAIR],
}
OPTIONS = [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"top_k": 9}]


def make(folder, **changes):
    """The real tokenizer and encoder with a head whose logits differ."""
    source = require_minilm()
    model = minift.AutoModelForSequenceClassification.from_pretrained(source, **changes)
    with torch.no_grad():
        model.classifier.weight.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    minift.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("three"), id2label=NAMES)


def peers(folder, **options):
    """minift's pipeline and the peer's."""
    ours = minift.pipeline("text-classification", model=folder, device="cpu", **options)
    return ours, transformers.pipeline("text-classification", model=folder, device=-1, **options)


@pytest.fixture(scope="module")
def pipelines(folder):
    return peers(folder)


def assert_same(got, want):
    """The same lists and labels; scores to 1e-6."""
    assert type(got) is type(want)
    if isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    else:
        assert got.keys() == want.keys() and got["label"] == want["label"]
        assert got["score"] == pytest.approx(want["score"], abs=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_a_call(pipelines, name, options):
    ours, theirs = pipelines
    assert_same(ours(INPUTS[name], **options), theirs(INPUTS[name], **options))


@pytest.mark.parametrize("options", OPTIONS[1:4], ids=str)
def test_top_k_of_the_pipeline(folder, options):
    ours, theirs = peers(folder, **options)
    for given in INPUTS.values():
        assert_same(ours(given), theirs(given))
    assert_same(ours(TEXT, top_k=2), theirs(TEXT, top_k=2))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches(folder, pipelines, size):
    given = INPUTS["list"] * 3
    ours, theirs = pipelines
    want = theirs(given, batch_size=size)
    assert_same(ours(given, batch_size=size), want)
    assert_same(peers(folder, batch_size=size)[0](given), want)


def test_long_texts_are_cut_where_the_peer_is_told_to(pipelines):
    ours, theirs = pipelines
    assert_same(ours("cat " * 700), theirs("cat " * 700, truncation=True, max_length=512))
    told = {"truncation": True, "max_length": 7}
    assert_same(ours(INPUTS["list"], **told), theirs(INPUTS["list"], **told))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 1},
        {"num_labels": 1, "problem_type": "regression"},
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        {"num_labels": 2, "problem_type": "single_label_classification"},
    ],
    ids=str,
)
def test_kinds_of_problems(tmp_path, changes):
    ours, theirs = peers(make(tmp_path, **changes))
    for options in ({}, {"top_k": None}):
        assert_same(ours(INPUTS["list"], **options), theirs(INPUTS["list"], **options))


CHOSEN = [
    {"truncation": True, "max_length": 7},
    {"truncation": "longest_first", "max_length": 9, "padding": "max_length"},
    {"truncation": True, "max_length": 8, "padding": True, "batch_size": 2},
    {"function_to_apply": "sigmoid"},
    {"function_to_apply": "none", "top_k": None},
    {"function_to_apply": "softmax", "top_k": 2},
]


@pytest.mark.parametrize("options", CHOSEN, ids=str)
def test_options_where_it_is_made_and_where_it_is_called(folder, pipelines, options):
    for (ours, theirs), call in ((peers(folder, **options), {}), (pipelines, options)):
        for given in INPUTS.values():
            assert_same(ours(given, **call), theirs(given, **call))


def test_streams(pipelines):
    ours, theirs = (one(text for text in INPUTS["list"]) for one in pipelines)
    assert not isinstance(ours, list) and not isinstance(theirs, list)
    assert_same(list(ours), list(theirs))


@pytest.mark.parametrize("device", [None, -1, 0, "cpu", torch.device("cpu")], ids=str)
def test_devices(folder, device):
    source = {"model": folder, "tokenizer": folder, "device": device}
    ours, theirs = (one.pipeline("text-classification", **source) for one in (minift, transformers))
    assert_same(ours(TEXT), theirs(TEXT))
