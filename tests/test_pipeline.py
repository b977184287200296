"""`pipeline("text-classification")`: names and scores for texts, in their order."""

import json

import numpy as np
import pytest
import torch
from tiny import make_model, make_rows

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Dataset,
    Device,
    hookimpl,
    pipeline,
)
from minift.errors import ArgumentError, ConfigError, DeviceError, MissingFileError
from minift.plugins import build_manager, set_default_manager

NAMES = {0: "different", 1: "equal", 2: "unsure"}
TEXTS = [text for pair in zip(*list(make_rows(30).values())[:2], strict=True) for text in pair]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("model") / "three", id2label=NAMES)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():  # the tiny model's logits hardly differ; these do
        model.classifier.weight.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classify(folder):
    return pipeline("text-classification", model=folder, device="cpu")


def logits_of(folder, *texts):
    """One row by itself, without any padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    encoded = AutoTokenizer.from_pretrained(folder)(*texts, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**encoded).logits[0]


def with_problem(folder, tmp_path, **changes):
    """A pipeline for the model with other entries in its config.json."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, **changes)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    return pipeline("text-classification", model=tmp_path, device="cpu")


def test_one_text(folder, classify):
    (answer,) = classify(TEXTS[0])
    probabilities = logits_of(folder, TEXTS[0]).softmax(-1)
    assert answer["label"] == NAMES[int(probabilities.argmax())]
    assert answer["score"] == pytest.approx(float(probabilities.max()), abs=1e-6)


def test_many_texts_in_their_order(folder, classify):
    """Batches are sorted by length inside; nobody may notice."""
    answers = classify(TEXTS)
    assert len(answers) == len(TEXTS) and len({a["label"] for a in answers}) > 1
    for text, answer in zip(TEXTS, answers, strict=True):
        (alone,) = classify(text)
        assert answer["label"] == alone["label"]
        assert answer["score"] == pytest.approx(alone["score"], abs=1e-6)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_batch_size_does_not_matter(folder, classify, size):
    other = pipeline("text-classification", model=folder, device="cpu", batch_size=size)
    np.testing.assert_allclose(
        other.scores(TEXTS, None), classify.scores(TEXTS, None), rtol=0, atol=1e-6
    )


def test_pairs(folder, classify):
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS[::2], TEXTS[1::2], strict=True)]
    answers = classify(pairs)
    for pair, answer in zip(pairs, answers, strict=True):
        probabilities = logits_of(folder, pair["text"], pair["text_pair"]).softmax(-1)
        assert answer["label"] == NAMES[int(probabilities.argmax())]
        assert answer["score"] == pytest.approx(float(probabilities.max()), abs=1e-6)
    assert classify(pairs[0]) == pytest.approx(answers[0], abs=1e-6)
    assert classify({"text": TEXTS[0]})["label"] == classify(TEXTS[0])[0]["label"]
    assert classify(tuple(pairs)) == answers


def test_an_empty_second_text_is_a_pair(folder, classify):
    answer = classify({"text": TEXTS[0], "text_pair": ""})
    probabilities = logits_of(folder, TEXTS[0], "").softmax(-1)
    assert answer["score"] == pytest.approx(float(probabilities.max()), abs=1e-6)


def test_top_k(classify):
    for k, count in ((None, 3), (2, 2), (5, 3)):
        answer = classify(TEXTS[0], top_k=k)
        scores = [entry["score"] for entry in answer]
        assert len(answer) == count and scores == sorted(scores, reverse=True)
    assert sorted(entry["label"] for entry in classify(TEXTS[0], top_k=None)) == sorted(
        NAMES.values()
    )
    many = classify(TEXTS[:4], top_k=None)
    assert [len(answer) for answer in many] == [3] * 4
    assert [answer[0] for answer in many] == classify(TEXTS[:4])


def test_top_k_of_the_pipeline_holds_where_the_call_says_none(folder):
    classify = pipeline("text-classification", model=folder, device="cpu", top_k=2)
    (both,) = classify(TEXTS[0])
    assert (
        len(both) == 2 and classify([TEXTS[0]]) == [both] and classify({"text": TEXTS[0]}) == both
    )
    assert classify(TEXTS[0], top_k=1) == both[:1]


def test_options_of_a_call(folder, classify):
    texts = [f"w1 w2 {text}" for text in TEXTS[:9]]
    same = classify(texts, batch_size=2)
    assert [a["label"] for a in same] == [a["label"] for a in classify(texts)]
    (cut,) = classify("w3 w4 w5 w6", max_length=4)  # [CLS] w3 w4 [SEP]
    assert cut == pytest.approx(classify("w3 w4")[0], abs=1e-6)


def test_probabilities_sum_to_one(classify):
    scores = classify.scores(TEXTS, None)
    assert scores.shape == (len(TEXTS), 3) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1.0, rtol=0, atol=1e-6)
    assert (scores > 0).all()


def test_several_labels_a_row(folder, tmp_path):
    classify = with_problem(folder, tmp_path, problem_type="multi_label_classification")
    want = logits_of(folder, TEXTS[0]).sigmoid().numpy()
    np.testing.assert_allclose(classify.scores([TEXTS[0]], None)[0], want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("problem", "shown"),
    [("regression", lambda x: x), (None, torch.sigmoid)],
    ids=["raw", "sigmoid"],
)
def test_one_output(folder, tmp_path, problem, shown):
    """The bare number for regression; else transformers shows one logit as a probability."""
    classify = with_problem(folder, tmp_path, num_labels=1, problem_type=problem)
    (answer,) = classify(TEXTS[0])
    assert answer["label"] == "LABEL_0"
    want = float(shown(logits_of(tmp_path, TEXTS[0]))[0])
    assert answer["score"] == pytest.approx(want, abs=1e-6)


def test_a_regression_that_was_trained_gives_bare_numbers(folder, tmp_path):
    """Nobody said problem_type; the float labels did, and the saved model remembers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model(**tokenizer(TEXTS[0], return_tensors="pt"), labels=torch.tensor([2.5]))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (answer,) = pipeline("text-classification", model=tmp_path, device="cpu")(TEXTS[0])
    want = float(logits_of(tmp_path, TEXTS[0])[0])
    assert want < 0 or want > 1 or abs(want - 1 / (1 + np.exp(-want))) > 1e-3
    assert answer["score"] == pytest.approx(want, abs=1e-6)


def test_no_texts(classify):
    assert classify([]) == []
    assert classify([], top_k=None) == []


def test_a_text_longer_than_the_model_is_cut(classify):
    (answer,) = classify("w1 " * 100)
    assert np.isfinite(answer["score"])


def test_a_model_that_is_in_training_is_used_without_dropout(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).train()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    classify = pipeline("text-classification", model, tokenizer, device="cpu")
    assert classify(TEXTS[:5]) == classify(TEXTS[:5])


@pytest.mark.parametrize(
    "inputs",
    [
        5,
        [None],
        [["w1", "w2"]],
        {"sentence": "w1"},
        {"text": "w1", "text_par": "w2"},
        {"text": "w1", "text_pair": 3},
        [{"text": "w1", "text_pair": "w2"}, "w3"],
    ],
    ids=str,
)
def test_inputs_that_are_none(classify, inputs):
    with pytest.raises((ArgumentError, TypeError)):
        classify(inputs)


def test_the_wrong_input_is_shown(classify):
    with pytest.raises(ArgumentError, match="input 1") as caught:
        classify(["w1", {"text": "w1", "text_par": "w2"}])
    assert "text_par" in str(caught.value) and "'text_pair'" in str(caught.value)


def test_arguments_that_are_none(folder, tmp_path):
    with pytest.raises(ConfigError, match="translation"):
        pipeline("translation", model=folder)
    with pytest.raises(ArgumentError, match="tokenizer"):
        pipeline("text-classification", AutoModelForSequenceClassification.from_pretrained(folder))
    with pytest.raises(DeviceError, match="abacus"):
        pipeline("text-classification", model=folder, device="abacus")
    with pytest.raises(MissingFileError):
        pipeline("text-classification", model=tmp_path / "nowhere")


def test_a_name_that_a_plugin_knows(folder, classify):
    class Finder:
        @hookimpl
        def minift_find_checkpoint(self, name):
            return folder if name == "org/three" else None

    set_default_manager(build_manager([], plugins=[Finder()]))
    assert pipeline("text-classification", model="org/three", device="cpu")(TEXTS) == classify(
        TEXTS
    )
    set_default_manager(build_manager(["no:hub"], plugins=[Finder()]))
    with pytest.raises(MissingFileError, match="org/four"):
        pipeline("text-classification", model="org/four", device="cpu")


def test_the_older_name_of_the_task(folder):
    assert pipeline("sentiment-analysis", model=str(folder), device="cpu")(TEXTS[0])


def test_names_come_from_the_file(folder):
    said = json.loads((folder / "config.json").read_text())
    assert said["id2label"] == {str(number): name for number, name in NAMES.items()}


# ------------------------------------------------------------------- how it is made, and called


def test_a_tokenizer_by_its_path(folder, classify):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    for tokenizer in (str(folder), folder, f"{folder}/", AutoTokenizer.from_pretrained(folder)):
        for given in (folder, model):
            made = pipeline("text-classification", given, tokenizer, device="cpu")
            assert made(TEXTS[0]) == classify(TEXTS[0])
    with pytest.raises(MissingFileError):
        pipeline("text-classification", folder, tokenizer=folder / "nowhere")


@pytest.mark.parametrize("device", [None, -1, "cpu", torch.device("cpu")], ids=str)
def test_devices_as_they_are_passed_elsewhere(folder, classify, device):
    made = pipeline("text-classification", folder, device=device)
    assert made(TEXTS[0])[0]["label"] == classify(TEXTS[0])[0]["label"]
    assert device is None or made.device.name == "cpu"


def test_a_number_is_that_of_an_accelerator(folder):
    class Accelerator(Device):
        name, priority = "abacus", 100

    class Plugin:
        @hookimpl
        def minift_register_devices(self):
            return {"abacus": Accelerator}

    set_default_manager(build_manager([], plugins=[Plugin()]))
    for number, spec in ((0, "abacus"), (-1, "cpu"), (torch.device("cpu"), "cpu")):
        assert pipeline("text-classification", folder, device=number).device.spec == spec


OPTIONS = [
    {"truncation": True, "max_length": 4},
    {"truncation": "longest_first", "max_length": 5, "padding": "max_length"},
    {"padding": True, "batch_size": 3},
    {"padding": False, "batch_size": None},
    {"top_k": None},
    {"top_k": 2, "function_to_apply": "sigmoid"},
    {"function_to_apply": "none"},
    {"function_to_apply": None},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_are_taken_where_it_is_made_and_where_it_is_called(folder, classify, options):
    made = pipeline("text-classification", folder, device="cpu", **options)
    texts = TEXTS[:7]
    assert made(texts) == classify(texts, **options)
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS[:4], TEXTS[4:8], strict=True)]
    assert made(pairs) == classify(pairs, **options)


def test_a_call_overrides_what_it_names_and_nothing_else(folder, classify):
    made = pipeline("text-classification", folder, device="cpu", max_length=4, top_k=2)
    assert made("w3 w4 w5 w6") == [classify("w3 w4", top_k=2)]
    assert made("w3 w4 w5 w6", max_length=5) == [classify("w3 w4 w5", top_k=2)]
    assert made(["w3 w4 w5 w6"], top_k="best") == classify(["w3 w4"])


def test_scores_by_another_function(folder, classify):
    logits = logits_of(folder, TEXTS[0])
    for name, want in {
        "none": logits,
        "sigmoid": logits.sigmoid(),
        "softmax": logits.softmax(-1),
    }.items():
        answer = classify(TEXTS[0], top_k=None, function_to_apply=name)
        best = [entry["score"] for entry in answer]
        np.testing.assert_allclose(best, want.sort(descending=True)[0], rtol=0, atol=1e-6)


def test_columns_and_streams_of_texts(folder, classify):
    want = classify(TEXTS[:9])
    column = Dataset.from_dict({"text": TEXTS[:9]})["text"]
    for many in (tuple(TEXTS[:9]), column, np.array(TEXTS[:9])):
        assert classify(many) == want
    asked = []

    def stream():
        for text in TEXTS[:9]:
            asked.append(text)
            yield text

    answers = classify(stream(), batch_size=4)
    assert iter(answers) is answers and asked == []
    first = next(answers)
    assert first["label"] == want[0]["label"] and len(asked) == 4  # no more than one batch
    rest = [first, *answers]
    assert [one["label"] for one in rest] == [one["label"] for one in want]
    assert list(classify(iter([]))) == []
    pairs = ({"text": text, "text_pair": "w1"} for text in TEXTS[:3])
    assert len(list(classify(pairs, top_k=2))) == 3


@pytest.mark.parametrize("name", ["max_lenght", "topk", "return_all_scores", "num_workers"])
def test_an_option_that_does_not_exist_names_the_nearest(folder, classify, name):
    near = {"max_lenght": "'max_length'", "topk": "'top_k'", "return_all_scores": "top_k=None"}
    with pytest.raises(ArgumentError, match=name) as made:
        pipeline("text-classification", folder, device="cpu", **{name: True})
    with pytest.raises(ArgumentError, match=name) as called:
        classify(TEXTS[0], **{name: True})
    assert near.get(name, "batch_size") in str(made.value) and str(made.value) == str(called.value)


@pytest.mark.parametrize(
    "options",
    [{"padding": "left"}, {"truncation": "middle"}, {"function_to_apply": "tanh"}],
    ids=str,
)
def test_a_value_that_does_not_exist(classify, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        classify(TEXTS[0], **options)


def test_what_a_pipeline_cannot_do_without(folder):
    assert pipeline(model=folder, device="cpu")(TEXTS[0])
    for given in ({}, {"tokenizer": str(folder)}):
        with pytest.raises(ArgumentError, match="model"):
            pipeline("text-classification", device="cpu", **given)


def test_a_compiled_model(folder, classify):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    compiled = torch.compile(model, backend="eager", disable=True)
    made = pipeline("text-classification", compiled, folder, device="cpu")
    assert made(TEXTS[:3]) == classify(TEXTS[:3])
