"""A Trainer's labels: one numbering for model and datasets, of every type that holds classes.

Each advice that an error gives is followed here.
"""

import numpy as np
import pytest
import torch
from tiny import load, make_model

from minift import (
    AutoTokenizer,
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
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
    every = ClassLabel(names=ABC)  # the advice: one ClassLabel of all classes
    both = [dataset.cast_column("label", every) for dataset in (train, evaluation)]
    trainer(folder, *both, num_labels=3).train()
    made = trainer(folder, train, num_labels=3)
    with pytest.raises(ConfigError, match="number different classes"):
        made.evaluate(evaluation)
    with pytest.raises(ConfigError, match="number different classes"):
        made.predict(evaluation)


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        (named(AB, [0, 1]), named(["A", " b"], [0, 1])),
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
    if "a" in names and "b" in names:  # and for one that knows these classes: by name
        cast = data.cast_column("label", ClassLabel(names=names))
        assert [names[n] for n in cast["label"]] == ["a", "b", "b"]
        trainer(folder, cast, **options).train()


@pytest.mark.parametrize(
    "names",
    [["LABEL_0", "LABEL_1"], ["0", "1"], ["A", "B "], ["a", "b", "c"]],
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
    with pytest.raises(DataError, match="no class for") as caught:
        trainer(folder, rows([-1, 0, 1]), num_labels=3)
    assert "class_encode_column" in caught.value.do
    encoded = DatasetDict(train=rows([-1, 0, 1])).class_encode_column("label")["train"]
    trainer(folder, encoded, num_labels=3).train()


def test_strings_are_encoded_for_all_splits_at_once(folder):
    splits = DatasetDict(train=rows(["x", "y", "z"]), test=rows(["z", "y"]))
    for name, dataset in splits.items():
        with pytest.raises(DataError, match="strings") as caught:
            trainer(folder, *((dataset,) if name == "train" else (None, dataset)), num_labels=3)
        assert "of the DatasetDict" in caught.value.do
    encoded = splits.class_encode_column("label")
    made = trainer(folder, encoded["train"], encoded["test"], metrics="accuracy", num_labels=3)
    made.train()
    assert made.predict(encoded["test"]).label_ids.tolist() == [2, 1]


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
    with pytest.raises(ColumnError, match=r"train_dataset .* hides its labels by its format"):
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


# --- metrics by name -----------------------------------------------------------------------------

SEVERAL = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("labels", "n", "metric"),
    [
        (SEVERAL, 3, "accuracy"),
        (SEVERAL, 3, ["f1_macro", "f1_micro"]),
        ([[1, 0, 1], [0, 1, 0]], 3, "recall_weighted"),
        ([[True, False], [False, True]], 2, "precision_macro"),
        ([[1.0], [0.5]], 1, ["pearsonr", "spearmanr"]),
        ([1.0, 0.5], 1, "pearsonr"),
        ([0, 1, 2], 3, ["accuracy", "f1_macro", "f1_weighted"]),
        ([0, 1, 1], 2, ["accuracy", "f1"]),
        ([0, 1, 2], 3, "matthews_correlation"),
    ],
    ids=str,
)
def test_metrics_by_name(folder, labels, n, metric):
    made = trainer(folder, rows(labels), rows(labels), metrics=metric, num_labels=n)
    made.train()
    names = [metric] if isinstance(metric, str) else metric
    assert {f"eval_{name}" for name in names} <= set(made.evaluate())


@pytest.mark.parametrize(
    ("labels", "options", "metric", "advice"),
    [
        (SEVERAL, {"num_labels": 3}, "f1", "f1_macro"),
        (SEVERAL, {"num_labels": 3}, "matthews_correlation", "f1_macro"),
        ([0, 1, 2], {"num_labels": 3}, "f1", "f1_weighted"),
        ([0, 1], {"num_labels": 3}, "precision", "precision_macro"),  # the model knows a third
        (SEVERAL, {"num_labels": 3, "problem_type": "regression"}, "pearsonr", "function"),
        (SEVERAL, {"num_labels": 3, "problem_type": "regression"}, "accuracy", "function"),
    ],
    ids=str,
)
def test_metrics_that_do_not_fit_are_refused_before_training(
    folder, labels, options, metric, advice
):
    with pytest.raises((DataError, ConfigError)) as caught:
        trainer(folder, rows(labels), rows(labels), metrics=metric, **options)
    assert advice in caught.value.do
    if "_" in advice:
        trainer(folder, rows(labels), rows(labels), metrics=advice, **options).train()


def test_scores_of_several_labels_are_those_of_logits_above_zero(folder):
    """A probability above a half; scikit-learn's macro F1 of these is 2/3."""
    from minift.training.evaluation import EvalPrediction, named_metrics

    logits = np.array([[2.0, -1.0, -3.0], [-1.0, 0.5, -2.0]])
    scores = named_metrics(["accuracy", "f1_macro"])(EvalPrediction(logits, np.array(SEVERAL)))
    assert scores == {"accuracy": 0.5, "f1_macro": pytest.approx(2 / 3)}


def test_a_module_without_a_configuration_is_not_tried_on(folder):
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, input_ids, attention_mask=None, labels=None):
            raise NotImplementedError

    data = rows([0, 1], Features({"label": ClassLabel(names=AB)})["label"])
    trainer(folder, data, data, metrics="accuracy", model=Bare())
