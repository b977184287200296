"""A Trainer's labels: one numbering for model and datasets, of every type that holds classes.

Each advice that an error gives is followed here.
"""

import numpy as np
import pytest
from tiny import load, make_model

from minift import (
    AutoTokenizer,
    ClassLabel,
    Dataset,
    Trainer,
    TrainingArguments,
    Value,
)
from minift.errors import ColumnError, ConfigError, DataError

ARGS = {"max_steps": 1, "device": "cpu", "precision": "fp32", "disable_tqdm": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


def rows(labels, feature=None, name="label"):
    columns = {"input_ids": [[2, 5 + i % 7, 6, 3] for i in range(len(labels))], name: labels}
    dataset = Dataset.from_dict(columns)
    return dataset if feature is None else dataset.cast_column(name, feature)


def named(names, labels):
    return rows(labels, ClassLabel(names=names))


def trainer(folder, train, evaluation=None, metrics=None, model=None, **options):
    return Trainer(
        load(folder, **options) if model is None else model,
        TrainingArguments(None, **ARGS),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=AutoTokenizer.from_pretrained(folder),
        compute_metrics=metrics,
    )


# --- two datasets --------------------------------------------------------------------------------

ABC, AB = ["a", "b", "c"], ["a", "b"]


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        (named(ABC, [0, 1, 2]), named(["a", "c"], [0, 1])),
        (named(AB, [0, 1]), named(ABC, [0, 1])),
        (named(AB, [0, 1]), named(["b", "a"], [0, 1])),
        (named(AB, [0, 1]), rows([0, 1])),
        (rows([0, 1]), named(AB, [0, 1])),
    ],
    ids=[
        "one lacks a class",
        "one has an extra",
        "another order",
        "names, numbers",
        "numbers, names",
    ],
)
def test_datasets_that_number_classes_unlike_are_refused_before_training(folder, train, evaluation):
    with pytest.raises(
        ConfigError, match="train_dataset and eval_dataset number different classes"
    ) as caught:
        trainer(folder, train, evaluation, num_labels=3)
    for dataset in (train, evaluation):
        assert (
            ", ".join(getattr(dataset.features["label"], "names", ["numbers"])) in caught.value.got
        )
    every = ClassLabel(names=ABC)  # the advice: both of text, by one ClassLabel of all classes
    both = [rows(["a", "b", "a"], every), rows(["b", "c"], every)]
    trainer(folder, *both, num_labels=3).train()
    made = trainer(folder, train, num_labels=3)
    with pytest.raises(ConfigError, match="number different classes"):
        made.evaluate(evaluation)
    with pytest.raises(ConfigError, match="number different classes"):
        made.predict(evaluation)


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        (named(AB, [0, 1]), named(["A", "B"], [0, 1])),
        (rows([0, 1]), rows([0, 1], ClassLabel(num_classes=2))),
        (rows([0, 1]), named(["LABEL_0", "LABEL_1"], [0, 1])),
        (rows([0, 1]), rows(np.array([0, 1], np.int8))),
        (rows([0, 1]), rows([False, True])),
        (rows([0.0, 1.0]), rows([0, 1])),
    ],
    ids=[
        "other spellings",
        "no names",
        "placeholders",
        "another width",
        "booleans",
        "whole floats",
    ],
)
def test_datasets_that_number_classes_alike(folder, train, evaluation):
    made = trainer(folder, train, evaluation, metrics="accuracy")
    made.train()
    assert {"eval_loss", "eval_accuracy"} <= set(made.evaluate())


def test_a_dataset_whose_labels_hide_is_predicted_whatever_its_names(folder):
    made = trainer(folder, named(AB, [0, 1]))
    hidden = rows([-1, -1], ClassLabel(names=["x", "y"]))
    assert made.predict(hidden).label_ids is None


# --- a model and a dataset -----------------------------------------------------------------------


@pytest.mark.parametrize("names", [["b", "a"], ["x", "y"], ["a", "x"], ["b", "a", "c"]])
def test_a_model_that_names_its_classes_otherwise_is_refused(folder, names):
    data = named(AB, [0, 1, 1])
    options = {"id2label": dict(enumerate(names))}
    for datasets in ((data,), (None, data)):
        with pytest.raises(
            ConfigError, match=r"the model and (train|eval)_dataset number"
        ) as caught:
            trainer(folder, *datasets, **options)
        assert caught.value.got == f"{', '.join(names)}; a, b"
    trainer(folder, data, id2label={0: "a", 1: "b"}).train()  # as it says, for a model that learns


@pytest.mark.parametrize(
    "names",
    [["LABEL_0", "LABEL_1"], ["0", "1"], ["A", "B"], ["a", "b", "c"]],
    ids=["placeholders", "numbers", "spellings", "more classes"],
)
def test_a_model_that_does_not_contradict_the_data(folder, names):
    trainer(folder, named(AB, [0, 1]), id2label=dict(enumerate(names))).train()
    trainer(folder, rows([0, 1]), id2label=dict(enumerate(names))).train()


# --- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        [False, True],
        [0.0, 1.0],
        np.array([0, 1], np.uint8),
        np.array([0, 1], np.int32),
        np.array([0, 1], np.float32),
        np.array([0, 1], np.float16),
        np.array([False, True]),
        [1.0, -100.0, 0.0],
    ],
    ids=str,
)
def test_booleans_and_whole_floats_are_classes(folder, labels):
    data = rows(labels)
    made = trainer(folder, data, data, metrics="accuracy")
    assert made.model.config.problem_type == "single_label_classification"
    made.train()
    plain = trainer(folder, rows([int(v) for v in labels]))
    plain.train()
    assert made.state.log_history[0]["loss"] == plain.state.log_history[0]["loss"]
    assert made.predict(data).label_ids.dtype == np.int64


def test_stars_that_a_function_compares(folder):
    stars = rows([1, 2, 4, 5]).map(lambda row: {"label": row["label"] > 3})
    made = trainer(folder, stars.shuffle(seed=1))
    assert sorted(made.run.train_dataset["label"]) == [0, 0, 1, 1]
    made.train()


def test_floats_of_a_model_with_one_output_stay_numbers(folder):
    made = trainer(folder, rows([0.0, 1.0]), num_labels=1)
    assert made.model.config.problem_type == "regression"
    assert made.run.train_dataset.features["label"] == Value("float64")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 0.5], "do not fit the outputs"),
        ([0.0, 2.0], "no class for"),
        ([0.0, float("nan")], "NaN"),
        ([0.0, None], "no label"),
        ([True, None], "no label"),
        ([-1, 0], "no class for"),
    ],
    ids=str,
)
def test_what_is_no_class_is_refused_before_training(folder, labels, message):
    with pytest.raises(DataError, match=message):
        trainer(folder, rows(labels))


def test_a_negative_class_is_not_filtered_out(folder):
    """-1, 0 and 1 are bad, neither and good: the advice keeps all three."""
    stars = rows([-1, 0, 1])
    with pytest.raises(DataError, match="no class for") as caught:
        trainer(folder, stars, num_labels=3)
    assert "if it is a class, number all from 0 with map" in caught.value.do
    trainer(folder, stars.map(lambda row: {"label": row["label"] + 1}), num_labels=3).train()


def test_strings_are_cast_alike_in_all_splits(folder):
    train, test = rows(["x", "y", "z"]), rows(["z", "y"])
    for datasets in ((train,), (None, test)):
        with pytest.raises(DataError, match="strings") as caught:
            trainer(folder, *datasets, num_labels=3)
        assert "cast_column('label', ClassLabel(names=[...])) in all splits" in caught.value.do
    every = ClassLabel(names=["x", "y", "z"])
    both = [dataset.cast_column("label", every) for dataset in (train, test)]
    made = trainer(folder, *both, metrics="accuracy", num_labels=3)
    made.train()
    assert made.predict(both[1]).label_ids.tolist() == [2, 1]


# --- labels that nobody sees ---------------------------------------------------------------------


def hidden(dataset):
    return dataset.with_format("torch", columns=["input_ids"])


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (rows([0, 1], name="target"), "no label column"),
        (rows([0, 1]).remove_columns("label"), "no label column"),
        (hidden(rows([0, 1])), "hides its labels"),
        (rows([-1, -1]), "no class for"),
        (rows([None, None], Value("int64")), "no label"),
    ],
    ids=["another name", "none", "hidden by a format", "-1", "None"],
)
def test_evaluation_rows_without_labels_are_refused_before_training(folder, evaluation, message):
    with pytest.raises(DataError, match=message):
        trainer(folder, rows([0, 1]), evaluation)
    with pytest.raises(DataError, match=message):
        trainer(folder, rows([0, 1])).evaluate(evaluation)


def test_the_advice_for_labels_that_nobody_sees(folder):
    shown = hidden(rows([0, 1])).with_format("torch", columns=["input_ids", "label"])
    renamed = rows([0, 1], name="target").rename_column("target", "labels")
    for train, evaluation in ((rows([0, 1]), renamed), (shown, renamed), (rows([0, 1]), shown)):
        made = trainer(folder, train, evaluation, metrics="accuracy")
        made.train()
        assert {"eval_loss", "eval_accuracy"} <= set(made.evaluate())


def test_training_rows_whose_label_a_format_hides_are_refused(folder):
    with pytest.raises(ColumnError, match="train_dataset hides its labels by its format"):
        trainer(folder, hidden(rows([0, 1])))


def test_rows_without_labels_are_predicted(folder):
    made = trainer(folder, rows([0, 1]))
    for dataset in (hidden(rows([0, 1])), rows([0, 1], name="target"), rows([-1, -1])):
        found = made.predict(dataset)
        assert found.label_ids is None and found.predictions.shape == (2, 2)


def test_a_format_that_shows_all_hides_nothing(folder):
    for dataset in (
        rows([0, 1]).with_format("torch"),
        rows([0, 1]).with_format("numpy", columns=["input_ids"], output_all_columns=True),
        rows([0, 1]).with_transform(lambda batch: batch),
    ):
        trainer(folder, dataset).train()
