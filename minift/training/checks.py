"""Checks of a dataset before the first step: its columns, and labels that cannot be learned from.

Unchecked, a wrong label is a failed assertion on a GPU, a crash in the backward pass, or unnoticed.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Value
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
    known: dict[str, list[str]], dataset: Dataset | None, name: str,
    must_have_labels: bool = False, *, model: Any, own_loss: bool,
) -> Dataset | None:  # fmt: skip
    """Check a dataset, and select the columns that the model's forward takes.

    Args:
        known: names of the classes to train on; see `check_class_names`.
        dataset: tokenized rows, or None.
        name: of the argument that it was passed as, for messages.
        must_have_labels: for training and evaluation.
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
    form, names = dataset.row_format, forward_arguments(model)
    every = form.output_all_columns or form.type == "transform"
    shown = (None if every else form.columns) or dataset.column_names
    label = next((n for n in LABEL_NAMES if n in shown), None)
    got = f"columns {', '.join(shown)}"
    if must_have_labels and label is None:
        what = f"{name} has no label column, or hides its labels by its format"
        do = "rename_column(your_label_column, 'labels'), or show it: with_format(columns=...)"
        raise ColumnError(what, got=got, expected=f"one of {', '.join(LABEL_NAMES)}", do=do)
    columns = [n for n in shown if (names is None or n in names) and n not in LABEL_NAMES]
    if not columns:
        what, expected = f"{name} has no column for the model", ", ".join(sorted(names or ()))
        do = "tokenize it first: dataset.map(tokenize, batched=True)"
        raise ColumnError(what, got=got, expected=f"some of {expected}", do=do)
    if label is None:
        return dataset.select_columns(columns)
    labelled = dataset.select_columns([*columns, label])
    if not own_loss:
        labelled = with_whole_numbers(labelled, label, getattr(model, "config", None))
    if not check_labels(labelled, label, model, name, must_have_labels, own_loss):
        return dataset.select_columns(columns)
    check_class_names(name, labelled.features[label], model, known)
    if isinstance(model, PretrainedModel) and not own_loss:
        choose_problem_type(labelled, label, model.config, name)
    return labelled


def with_whole_numbers(dataset: Dataset, label: str, config: Any) -> Dataset:
    """Return booleans as 0 and 1, and floats that are whole as int64 where labels are classes."""
    dtype, kind = getattr(dataset.features[label], "dtype", ""), getattr(config, "problem_type", "")
    classes = kind in (None, "single_label_classification") and config.num_labels > 1
    if dtype == "bool" or (classes and dtype.startswith("float")):
        with contextlib.suppress(DataError):  # a fraction or NaN, which is refused with its row
            return dataset.cast_column(label, Value("int64"))
    return dataset


def check_class_names(name: str, feature: Any, model: Any, known: dict[str, list[str]]) -> None:
    """Refuse labels whose classes are numbered unlike those of a model or of another dataset.

    Names that only repeat the numbers, "0" or "LABEL_0", say nothing.

    Args:
        name: of the dataset.
        feature: of its labels.
        model: its configuration may have names too, also of more classes.
        known: {"train_dataset": names of its classes}, once it was checked.

    Raises:
        ConfigError: it shows both, and how to make them the same.
    """
    names = real_names(getattr(feature, "names", ()))
    id2label = getattr(getattr(model, "config", None), "id2label", None) or {}
    for other, theirs in {"the model": real_names(id2label.values()), **known}.items():
        n = min(len(names), len(theirs)) if other == "the model" else None
        if [*map(ClassLabel.spelling, names[:n])] != [*map(ClassLabel.spelling, theirs[:n])]:
            got = f"{', '.join(theirs) or 'numbers'}; {', '.join(names) or 'numbers'}"
            do = "cast_column both to one ClassLabel of all classes (numbers follow the names); "
            do += f"a model that is to learn these, load with id2label={dict(enumerate(names))}"
            raise ConfigError(f"{other} and {name} number different classes", got=got, do=do)
    if name == "train_dataset":
        known[name] = names


def real_names(names: Iterable[str]) -> list[str]:
    """Return names of classes; none if they only repeat the numbers: "0", or LABEL_0."""
    names = list(names)
    return [] if all(n in (str(i), f"LABEL_{i}") for i, n in enumerate(names)) else names


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
    column, feature = dataset.arrow_column(label), dataset.features[label]
    if not len(column) or num_labels is None:
        return True
    names = f" ({', '.join(feature.names)})" if isinstance(feature, ClassLabel) else ""
    expected = f"class numbers 0 to {num_labels - 1}{names}"
    do = (
        f"number all classes from 0 by class_encode_column({label!r}) of the DatasetDict; load the "
    )
    do += "model with as many num_labels (`minift train` takes --label-names); filter unlabelled "
    do += "rows out; cast numbers that are to be predicted to float"
    if "string" in getattr(feature, "dtype", ""):
        what, got = f"the labels in {name} are strings", f"{column[0].as_py()!r:.40}"
        raise DataError(what, got=got, expected=expected, do=do)
    missing = pc.is_null(column, nan_is_null=True)
    if count := pc.sum(missing).as_py():
        got = f"{count} of {len(column)}, first in row {pc.index(missing, True)}"
        raise DataError(f"rows of {name} have no label, or NaN", got=got, do="label or remove them")
    values = pc.unique(column).to_pylist() if pa.types.is_integer(column.type) else []
    if values == [-1] and not training:
        return False
    wrong = sorted(v for v in values if v != -100 and not 0 <= v < num_labels)
    if wrong and not own_loss:
        what = f"{name} has labels that the model has no class for"
        got = f"{', '.join(map(str, wrong[:5]))}, first in row {pc.index(column, wrong[0])}"
        raise DataError(what, got=got, expected=expected, do=do)
    return True


def choose_problem_type(dataset: Dataset, label: str, config: Any, name: str) -> None:
    """Set `config.problem_type` by the type of the labels, if it is not set.

    Lists are several labels a row, floats are numbers to predict, integers are classes.

    Raises:
        DataError: they are of another type, or as many a row as the model has no outputs for.
    """
    column, n = dataset.arrow_column(label), config.num_labels
    lists, kinds = leaves(column)[1] > 0, ["regression"]
    widths = pc.unique(pc.list_value_length(column)).to_pylist() if lists else [1]
    fits = widths == [n] and (lists or pa.types.is_floating(column.type))
    if lists and n > 1:
        kinds = ["multi_label_classification", "regression"]
    elif pa.types.is_integer(column.type):
        fits, kinds = n > 1, ["single_label_classification"]
    kind = config.problem_type or kinds[0]
    if not fits or kind not in kinds:
        what = f"the labels in {name} do not fit the outputs of the model"
        got = f"{column.type}, {', '.join(map(str, widths[:5]))} a row; num_labels={n}, {kind}"
        expected = "num_labels numbers a row; or class numbers, which are whole"
        do = f"load the model with num_labels= or problem_type={kinds[0]!r}, or cast the labels"
        raise DataError(what, got=got, expected=expected, do=do)
    config.problem_type = kind
