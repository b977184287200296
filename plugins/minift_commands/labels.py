"""Labels to class numbers, or to float32 where a number is to be predicted, in the column `labels`.

A list of names means classes; an empty one, that a number is predicted. What cannot be trained on
or compared is an error here, before a model is loaded.
"""

import sys

import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Value
from minift.errors import ConfigError, DataError

# Of the rows held out for validation: one number for all runs, whose scores can then be compared.
HELD_OUT_SEED = 42


def check_texts(dataset: Dataset, columns: list[str], label: str | None, split: str) -> None:
    """Check that there are one or two columns, with text in every row.

    Raises:
        ConfigError, DataError: there are others, or a row has no text.
    """
    if not 1 <= len(columns) <= 2 or label in columns:
        what = "the text is in one column, or in two for pairs, and not in that of the labels"
        do = "pass --text-columns NAME or --text-columns FIRST,SECOND"
        raise ConfigError(what, got=", ".join(columns), do=do)
    dataset.check_columns(columns)
    for name in columns:
        values = dataset.to_arrow(columns=[name]).column(name)
        if getattr(dataset.features[name], "dtype", "") not in ("string", "large_string"):
            what = f"the column {name!r} of the {split} data is no text"
            expected = "strings; in a csv file, a column of nothing but numbers is numbers"
            do = "pass --text-columns with the columns that hold the text"
            raise DataError(what, got=f"{dataset.features[name]!r}", expected=expected, do=do)
        if values.null_count:
            row = values.is_null().to_pylist().index(True)
            what = f"the column {name!r} of the {split} data has rows without text"
            got = f"{values.null_count} of {len(dataset)}, the first is row {row}"
            raise DataError(what, got=got, do="remove these rows, or put an empty string there")


def with_labels(
    dataset: Dataset, label: str | None, names: list[str] | None, split: str
) -> Dataset:
    """Return the dataset with its labels as numbers in the column `labels`, if it has labels.

    Args:
        dataset: rows of one split.
        label: the column that holds them, or None.
        names: of the classes; []: a number is predicted; None: not known yet.
        split: its name, for messages.

    Raises:
        DataError: a label is a string that no name says the number of.
    """
    if label is None or label not in dataset.features:
        if split == "train":
            dataset.check_columns([label or "label"])
        return dataset
    if names != [] and "string" in getattr(dataset.features[label], "dtype", ""):
        dataset = encode_strings(dataset, label, names, split)
    dataset = dataset if label == "labels" else dataset.rename_column(label, "labels")
    return dataset.cast_column("labels", Value("float32")) if names == [] else dataset


def encode_strings(dataset: Dataset, label: str, names: list[str] | None, split: str) -> Dataset:
    """Turn string labels into the numbers of their names."""
    if not names:
        classes = dataset.unique(label)
        shown = ",".join(sorted(map(str, classes))[:20])
        others = f" and {len(classes) - 1} others" if len(classes) > 1 else ""
        what, got = f"the labels in column {label!r} are strings", f"{classes[0]!r}{others}"
        expected = "class numbers from 0, or names that say which number each string is"
        raise DataError(what, got=got, expected=expected, do=f"pass --label-names {shown}")
    try:
        return dataset.cast_column(label, ClassLabel(names=names))
    except DataError as error:
        what = f"the {split} data has a label that --label-names does not have: {error.what}"
        raise DataError(what, expected=", ".join(names)) from None


def without_hidden_labels(dataset: Dataset, split: str) -> Dataset:
    """Remove the labels if they are all -1, as a benchmark's test labels are.

    Raises:
        DataError: only some of them are, or any among the training rows.
    """
    if "labels" not in dataset.features:
        return dataset
    labels = dataset.to_arrow(columns=["labels"]).column("labels")
    hidden = pc.sum(pc.equal(labels, -1)).as_py() or 0
    if hidden and (split == "train" or hidden < len(dataset)):
        got = f"{hidden} of {len(dataset)} are labelled -1"
        raise DataError(f"the {split} data has rows without a label", got=got, do="filter them out")
    return dataset.remove_columns("labels") if hidden else dataset


def infer_names(data: dict[str, Dataset], label: str | None) -> list[str]:
    """Return the feature's class names, or LABEL_0... for as many numbers as training has.

    Raises:
        DataError: the labels are no whole numbers 0, 1, 2, ...
    """
    first = data.get("train") or next(iter(data.values()))
    if label is None or "labels" not in first.features:
        return []
    feature = first.features["labels"]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    if not str(getattr(feature, "dtype", "")).startswith(("int", "uint")):
        what = f"the labels in column {label!r} are no class numbers"
        raise DataError(what, got=f"{feature!r}", expected="integers from 0")
    values = sorted(v for v in first.unique("labels") if v is not None and v >= 0)
    if values != list(range(len(values))):
        what = f"the classes in column {label!r} are not 0, 1, 2, ..."
        got, expected = ", ".join(map(str, values[:8])), f"0 to {len(values) - 1}"
        do = "renumber them, or name every class, also one without rows: --label-names a,b,c"
        raise DataError(what, got=got, expected=expected, do=do)
    return default_names(max(len(values), 2))


def default_names(count: int) -> list[str]:
    """Return the names of classes that nobody named."""
    return [f"LABEL_{i}" for i in range(count)]


def check_names(data: dict[str, Dataset], names: list[str]) -> None:
    """Check that class names in the data are those of the model, in the same order.

    Raises:
        DataError: they are others.
    """
    for split, dataset in data.items():
        feature = dataset.features.get("labels")
        unnamed = names == default_names(len(names))
        if isinstance(feature, ClassLabel) and not unnamed and feature.names != names:
            what = f"the classes of the {split} data have other names, or another order"
            raise DataError(what, got=", ".join(feature.names), expected=", ".join(names))


def hold_out(data: dict[str, Dataset], fraction: float, names: list[str]) -> dict[str, Dataset]:
    """Move a fraction of the training rows to validation, each class in like shares."""
    rows = data["train"].cast_column("labels", ClassLabel(names=names))
    split = rows.train_test_split(fraction, stratify_by_column="labels", seed=HELD_OUT_SEED)
    text = f"{len(split['test'])} of {len(rows)} training rows are held out for validation"
    print(text, file=sys.stderr)
    return {**data, "train": split["train"], "validation": split["test"]}
