"""Checks of a dataset before the first step: its columns, and labels that cannot be learned from.

Unchecked, a wrong label is a failed assertion on a GPU, a crash in the backward pass, or unnoticed.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel
from minift.data.formatting import leaves
from minift.errors import ArgumentError, ColumnError, ConfigError, DataError
from minift.models.pretrained import PretrainedModel
from minift.tokenizer import LABEL_NAMES
from minift.training.losses import argument_names


def forward_arguments(model: Any, loss: Any = None) -> set[str] | None:
    """Return the argument names of `model.forward`; None if it takes any name (**kwargs).

    With a loss of the caller's, minift's models get no labels, so that they compute no other loss.
    """
    without = {"labels"} if loss is not None and isinstance(model, PretrainedModel) else set()
    names = argument_names(model.forward)
    return names if names is None else names - without


def select_model_columns(
    dataset: Dataset | None,
    name: str,
    must_have_labels: bool = False,
    *,
    model: Any,
    own_loss: bool,
) -> Dataset | None:
    """Check a dataset, and select the columns that the model's forward takes.

    Args:
        dataset: tokenized rows, or None.
        name: of the argument that it was passed as, for messages.
        must_have_labels: for training.
        model: its forward's argument names, and its configuration's number of labels.
        own_loss: the caller brings the loss, which may make other uses of the labels.

    Raises:
        ArgumentError: it is no Dataset.
        ColumnError: no column of it feeds the model, or there are no labels.
        DataError, ConfigError: the model cannot learn from its labels.
    """
    if dataset is None:
        return None
    if not isinstance(dataset, Dataset):
        what, do = f"{name} must be a minift Dataset", "use Dataset.from_dict or Dataset.from_list"
        raise ArgumentError(what, got=type(dataset).__name__, do=do)
    names = forward_arguments(model)
    label = next((n for n in LABEL_NAMES if n in dataset.features), None)
    got = f"columns {', '.join(dataset.column_names)}"
    if must_have_labels and label is None:
        expected, do = (
            f"one of {', '.join(LABEL_NAMES)}",
            "rename_column(your_label_column, 'labels')",
        )
        raise ColumnError(f"{name} has no label column", got=got, expected=expected, do=do)
    columns = [n for n in dataset.features if names is None or n in names]
    columns = [n for n in columns if n not in LABEL_NAMES]
    if not columns:
        what, expected = (
            f"{name} has no column that the model takes",
            ", ".join(sorted(names or ())),
        )
        do = "tokenize it first: dataset.map(tokenize, batched=True)"
        raise ColumnError(what, got=got, expected=f"some of {expected}", do=do)
    if label is not None and check_labels(dataset, label, model, name, must_have_labels, own_loss):
        columns.append(label)
        if isinstance(model, PretrainedModel) and not own_loss:
            choose_problem_type(dataset, label, model.config, name)
    return dataset.select_columns(columns)


def check_labels(
    dataset: Dataset, label: str, model: Any, name: str, training: bool, own_loss: bool
) -> bool:
    """Return whether the dataset is labelled; refuse labels that the model cannot learn from.

    A test set whose labels are all -1, as GLUE's are, counts as unlabelled; anywhere else -1 is an
    error. -100 marks a row that the loss leaves out. With a loss of the caller's, class numbers may
    be any.

    Raises:
        DataError, ConfigError: a label is missing or fits no output of the model.
    """
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    column = dataset.to_arrow(columns=[label]).column(label)
    if not len(column) or num_labels is None:
        return True
    numbers = f"class numbers 0 to {num_labels - 1}"
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        what, got = f"the labels in {name} are strings", f"{column[0].as_py()!r:.40}"
        do = f"dataset.class_encode_column({label!r}), or --label-names in `minift train`"
        raise DataError(what, got=got, expected=numbers, do=do)
    if column.null_count:
        raise DataError(f"{column.null_count} rows of {name} have no label", do="filter them out")
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
        row = pc.index(pc.is_nan(column), True).as_py()
        raise DataError(f"a label in {name} is NaN", got=f"row {row}", do="filter such rows out")
    if not pa.types.is_integer(column.type):
        return True
    values = pc.unique(column).to_pylist()
    if num_labels == 1 and not own_loss:
        what = f"the labels in {name} are integers, but the model has one output"
        expected = "num_labels of at least 2, or float labels for regression"
        do = "pass num_labels=, or cast the labels to float"
        raise ConfigError(what, got="num_labels=1, integer labels", expected=expected, do=do)
    if values == [-1] and not training:
        return False
    wrong = sorted(v for v in values if v != -100 and not 0 <= v < num_labels)
    if wrong and not own_loss:
        feature = dataset.features[label]
        names = f" ({', '.join(feature.names)})" if isinstance(feature, ClassLabel) else ""
        row, what = pc.index(column, wrong[0]), f"{name} has labels that the model has no class for"
        got = f"{', '.join(map(str, wrong[:5]))}, first in row {row}"
        do = "a negative label means unlabelled: filter such rows out"
        if wrong[0] >= 0:
            do = f"load the model with num_labels={max(values) + 1} (in `minift train`, name all "
            do += "classes with --label-names), or correct the labels"
        raise DataError(what, got=got, expected=f"{numbers}{names}", do=do)
    return True


def choose_problem_type(dataset: Dataset, label: str, config: Any, name: str) -> None:
    """Set `config.problem_type` by the type of the labels, if it is not set.

    Lists are several labels a row, floats are numbers to predict, integers are classes.

    Raises:
        DataError: the labels are no numbers, or do not fit the number of outputs.
        ConfigError: the configuration says another type.
    """
    column = dataset.to_arrow(columns=[label]).column(label)
    lists, numbers = leaves(column)[1] > 0, pa.types.is_floating(column.type)
    if not (lists or numbers or pa.types.is_integer(column.type)):
        expected = "class numbers, numbers to predict, or lists of 0 and 1"
        raise DataError(f"the labels in {name} are no numbers", got=column.type, expected=expected)
    width = pc.unique(pc.list_value_length(column)).to_pylist() if lists else [1]
    fits = ["single_label_classification"]
    if lists and config.num_labels > 1:
        fits = ["multi_label_classification", "regression"]
    elif lists or numbers:
        fits = ["regression"]
    if (lists or numbers) and width != [config.num_labels]:
        what = f"the labels in {name} do not fit the outputs of the model"
        got = f"{column.type} with {', '.join(map(str, width[:5]))} numbers a row"
        expected = "as many numbers a row as num_labels; or class numbers, which are integers"
        do = "pass num_labels= when the model is loaded, or cast the labels"
        got = f"{got}, num_labels={config.num_labels}"
        raise DataError(what, got=got, expected=expected, do=do)
    config.problem_type = config.problem_type or fits[0]
    if config.problem_type not in fits:
        what = f"the labels in {name} are not those of {config.problem_type}"
        do = f"load the model with problem_type={fits[0]!r}, or cast the labels"
        raise ConfigError(what, got=column.type, do=do)
