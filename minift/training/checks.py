"""Labels that the model cannot learn from, said before the first step rather than in the middle.

Elsewhere they are a failed assertion on a GPU, a crash in the backward pass, or nothing at all.
"""

import inspect
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel
from minift.data.formatting import leaves
from minift.errors import ConfigError, DataError


def inputs_of(model: Any) -> tuple[set[str], bool]:
    """The names that `model.forward` takes, and whether it takes any name at all."""
    parameters = inspect.signature(model.forward).parameters
    names = {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_labels(
    dataset: Dataset, label: str, model: Any, name: str, training: bool, judged: bool
) -> bool:
    """Whether the dataset is labelled; labels that the model cannot learn from are an error.

    With a loss of the caller's, numbers are not `judged` by what the model's own could learn from.

    A test set whose labels are all -1, as GLUE's are, counts as unlabelled; anywhere else -1 is an
    error. -100 marks a row that has no part in the loss.
    """
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    column = dataset.to_arrow(columns=[label]).column(label)
    if not len(column) or num_labels is None:
        return True
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise DataError(
            f"the labels in {name} are strings",
            got=f"{column[0].as_py()!r:.40}",
            expected=f"class numbers 0 to {num_labels - 1}",
            do=f"dataset.class_encode_column({label!r}), or --label-names in `minift train`",
        )
    if column.null_count:
        raise DataError(f"{column.null_count} rows of {name} have no label", do="filter them out")
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py():
        row = pc.index(pc.is_nan(column), True).as_py()
        raise DataError(f"a label in {name} is NaN", got=f"row {row}", do="filter such rows out")
    if not pa.types.is_integer(kind) or not judged:
        return not pa.types.is_integer(kind) or training or pc.unique(column).to_pylist() != [-1]
    if num_labels == 1:
        raise ConfigError(
            f"the labels in {name} are integers, but the model has one output",
            got="num_labels=1, integer labels",
            expected="num_labels of at least 2, or float labels for regression",
            do="pass num_labels=, or cast the labels to float",
        )
    values = pc.unique(column).to_pylist()
    if values == [-1] and not training:
        return False
    wrong = sorted(v for v in values if v != -100 and not 0 <= v < num_labels)
    if wrong:
        feature = dataset.features[label]
        names = f" ({', '.join(feature.names)})" if isinstance(feature, ClassLabel) else ""
        row = pc.index(column, wrong[0]).as_py()
        raise DataError(
            f"{name} has labels that the model has no class for",
            got=f"{', '.join(map(str, wrong[:5]))}, first in row {row}",
            expected=f"class numbers 0 to {num_labels - 1}{names}",
            do="a negative label means unlabelled: filter such rows out"
            if wrong[0] < 0
            else f"load the model with num_labels={max(values) + 1} (in `minift train`, name all "
            "classes with --label-names), or correct the labels",
        )
    return True


def decide_problem(dataset: Dataset, label: str, config: Any, name: str) -> None:
    """What kind of problem the labels pose, from their type: decided once, before training.

    Lists are several labels a row, other numbers with a fraction are to be predicted, integers are
    classes. A configuration that says otherwise is an error.
    """
    column = dataset.to_arrow(columns=[label]).column(label)
    lists, numbers = leaves(column)[1] > 0, pa.types.is_floating(column.type)
    if not (lists or numbers or pa.types.is_integer(column.type)):
        raise DataError(
            f"the labels in {name} are no numbers",
            got=f"{column.type}",
            expected="class numbers, numbers to predict, or lists of 0 and 1",
        )
    width = pc.unique(pc.list_value_length(column)).to_pylist() if lists else [1]
    fits = ["single_label_classification"]
    if lists and config.num_labels > 1:
        fits = ["multi_label_classification", "regression"]
    elif lists or numbers:
        fits = ["regression"]
    if (lists or numbers) and width != [config.num_labels]:
        raise DataError(
            f"the labels in {name} do not fit the outputs of the model",
            got=f"{column.type} with {', '.join(map(str, width[:5]))} numbers a row, "
            f"num_labels={config.num_labels}",
            expected="as many numbers a row as num_labels; or class numbers, which are integers",
            do="pass num_labels= when the model is loaded, or cast the labels",
        )
    config.problem_type = config.problem_type or fits[0]
    if config.problem_type not in fits:
        raise ConfigError(
            f"the labels in {name} are not those of {config.problem_type}",
            got=f"{column.type}",
            do=f"load the model with problem_type={fits[0]!r}, or cast the labels",
        )
