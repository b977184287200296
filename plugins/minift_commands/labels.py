"""Labels to class numbers, or to float32 where a number is to be predicted, in the column `labels`.

A list of names means classes; an empty one, that a number is predicted. What cannot be trained on
or compared is an error here, before a model is loaded.
"""

import sys
from typing import Any

import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Features, Value
from minift.errors import ConfigError, DataError
from minift.training.checks import real_names

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
        values = dataset.arrow_column(name)
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


def infer_names(data: dict[str, Dataset], label: str) -> list[str]:
    """Return the names of classes that the labels have, in the order of their numbers.

    A ClassLabel has them. Those of text are its sorted values in all splits, as class_encode_column
    takes them. Numbers have none: LABEL_0, ... for as many as training has.

    Raises:
        DataError: the labels do not say which classes there are, or in which order.
    """
    features = features_of(data, label)
    for feature in features.values():
        if isinstance(feature, ClassLabel):
            return list(feature.names)
    values = {split: data[split].unique(label) for split in features}
    texts = {split for split, feature in features.items() if is_text(feature)}
    if texts:
        return names_of_texts(values, texts, label)
    first = "train" if "train" in values else next(iter(values))
    numbers = [v for v in values[first] if v is not None]
    if not numbers or not all(isinstance(n, int | float) and n % 1 == 0 for n in numbers):
        what, got = f"the labels in column {label!r} are no class numbers", f"{features[first]!r}"
        expected = "whole numbers from 0, or text"
        raise DataError(what, got=got, expected=expected, do="pass --label-column with another one")
    if getattr(features[first], "dtype", "") == "bool":
        return ["False", "True"]
    found = sorted(map(int, numbers))
    if found != list(range(len(found))):
        what = f"the classes in column {label!r} are not 0, 1, 2, ..."
        got, expected = ", ".join(map(str, found[:8])), f"0 to {len(found) - 1}"
        do = "name every class, also one without rows: --label-names="
        do += ",".join(map(str, found[:20]))
        raise DataError(what, got=got, expected=expected, do=do)
    return default_names(max(len(found), 2))


def names_of_texts(values: dict[str, list[Any]], texts: set[str], label: str) -> list[str]:
    """Return the different texts of all splits, and print them.

    Args:
        values: the different labels of each split.
        texts: the splits whose labels are text.
        label: the column.

    Raises:
        DataError: there is one class only, two differ in case alone, or a split has numbers.
    """
    names = sorted({str(v).strip() for split in texts for v in values[split] if not is_blank(v)})
    for split in set(values) - texts:
        if other := [v for v in values[split] if v is not None and str(v) not in names]:
            what = f"the labels of the {split} data are numbers, and elsewhere they are text"
            do = "write the same labels in all files"
            raise DataError(what, got=f"{other[:8]}", expected=", ".join(names), do=do)
    spelled = {ClassLabel.spelling(name): name for name in names}
    if twice := [n for n in names if spelled[ClassLabel.spelling(n)] != n]:
        what = f"column {label!r} has two spellings of one class"
        got = ", ".join(f"{n!r} and {spelled[ClassLabel.spelling(n)]!r}" for n in twice[:4])
        do = f"write it in one way, or name them all: --label-names={','.join(names[:20])}"
        raise DataError(what, got=got, do=do)
    if len(names) < 2:
        what, do = f"all labels in column {label!r} are the same", "add rows of other classes"
        raise DataError(what, got=f"{names}", expected="two classes or more", do=do)
    print(f"classes of {label!r}, in the order of text: {', '.join(names)}", file=sys.stderr)
    trained = {str(v).strip() for v in values.get("train", names)}
    if "train" in values and (never := [name for name in names if name not in trained]):
        print(f"no training row is of {', '.join(never)}", file=sys.stderr)
    return names


def with_labels(
    data: dict[str, Dataset], label: str, names: list[str], hidden: bool
) -> dict[str, Dataset]:
    """Return the splits with their labels as numbers in the column `labels`, where they have any.

    Labels that are all missing or all -1 are hidden, as those of test rows are: the column goes.

    Args:
        data: rows by split.
        label: the column that holds them.
        names: of the classes; []: a number is predicted.
        hidden: whether -1 hides a label.

    Raises:
        DataError: a label is missing, hidden, or of no class.
    """
    named = are_names(data, label, names)
    return {split: encode(rows, label, names, split, named, hidden) for split, rows in data.items()}


def are_names(data: dict[str, Dataset], label: str, names: list[str]) -> bool:
    """Tell whether numbers in the column are names, as of stars from 1 to 5, or class numbers.

    They are names if names are numbers other than 0, 1, 2, ..., and each number in the data is one.
    """
    spelled = list(map(ClassLabel.spelling, names))
    values = {v for rows in data.values() if label in rows.features for v in rows.unique(label)}
    numbers = {ClassLabel.spelling(v) for v in values if v is not None}
    return numbers <= set(spelled) and any(spelled.index(n) != n for n in numbers)


def encode(
    rows: Dataset, label: str, names: list[str], split: str, named: bool, hidden: bool
) -> Dataset:
    """Return one split with its labels as numbers; see `with_labels`."""
    if label not in rows.features:
        if split == "train":
            rows.check_columns([label])
        return rows
    feature = rows.features[label]
    if names and any(map(is_blank, rows.unique(label))):
        blank = [i for i, value in enumerate(rows[label]) if is_blank(value)]
        if split != "train" and len(blank) == len(rows):
            return rows.remove_columns(label)
        what = f"the {split} data has rows without a label"
        got = f"{len(blank)} of {len(rows)}, the first is row {blank[0]}"
        raise DataError(what, got=got, do="give them a label, or remove these rows")
    try:
        if not names:
            rows = rows.cast_column(label, Value("float32"))
        elif not isinstance(feature, ClassLabel) and names == default_names(len(names)):
            rows = rows.cast_column(label, Value("int64"))
        elif isinstance(feature, ClassLabel) or is_text(feature):
            rows = rows.cast_column(label, ClassLabel(names=names))
        elif named:
            rows = rows.cast_column(label, Value("string"))
            rows = rows.cast_column(label, ClassLabel(names=names))
        else:
            rows = rows.cast_column(label, ClassLabel(num_classes=len(names)))
            features = {**rows.features, label: ClassLabel(names=names)}
            rows = rows.replace(features=Features(features))
    except DataError as error:
        what = f"the {split} data has a label that is none of the classes: {error.what}"
        do = "pass --label-names with every class, in the order of their numbers"
        raise DataError(what, expected=", ".join(names) or "numbers", do=do) from None
    rows = rows if label == "labels" else rows.rename_column(label, "labels")
    return without_hidden_labels(rows, split, hidden)


def features_of(data: dict[str, Dataset], label: str) -> dict[str, Any]:
    """Return the feature of the label column by split, where there is one."""
    return {split: rows.features[label] for split, rows in data.items() if label in rows.features}


def is_text(feature: Any) -> bool:
    return "string" in getattr(feature, "dtype", "")


def is_blank(value: Any) -> bool:
    return value is None or not str(value).strip()


def without_hidden_labels(dataset: Dataset, split: str, hidden: bool) -> Dataset:
    """Remove the labels if they are all -1, as a benchmark's test labels are.

    Args:
        dataset: with numbers in `labels`.
        split: its name, for messages.
        hidden: whether -1 hides a label, so that one among others is an error.

    Raises:
        DataError: only some of them are -1, or any among the training rows.
    """
    labels = dataset.arrow_column("labels")
    count = pc.sum(pc.equal(labels, -1)).as_py() or 0
    if hidden and count and (split == "train" or count < len(dataset)):
        got = f"{count} of {len(dataset)} are labelled -1"
        raise DataError(f"the {split} data has rows without a label", got=got, do="filter them out")
    every = count == len(dataset) and split != "train"
    return dataset.remove_columns("labels") if every else dataset


def default_names(count: int) -> list[str]:
    """Return the names of classes that nobody named."""
    return [f"LABEL_{i}" for i in range(count)]


def check_names(data: dict[str, Dataset], label: str, names: list[str], given: bool) -> None:
    """Check that class names in the data are those of the model, in the same order.

    Args:
        data: rows by split.
        label: the column.
        names: of the model's classes.
        given: whether the names were given, which says what numbers without names mean.

    Raises:
        DataError: they are others, or a split has numbers and another one names.
    """
    features = features_of(data, label)
    named = any(isinstance(f, ClassLabel) for f in features.values())
    for split, feature in features.items():
        own = real_names(getattr(feature, "names", ()))
        unnamed = names == default_names(len(names))
        same = list(map(ClassLabel.spelling, own)) == list(map(ClassLabel.spelling, names))
        if own and not unnamed and not same:
            what = f"the classes of the {split} data have other names, or another order"
            raise DataError(what, got=", ".join(own), expected=", ".join(names))
        number = not isinstance(feature, ClassLabel) and not is_text(feature)
        if named and number and not given:
            what = f"the {split} data has numbers without names, and another split has names"
            do = f"if 0 means {names[0]!r} and so on, pass --label-names={','.join(names)}"
            raise DataError(what, got=f"{feature!r}", expected=", ".join(names), do=do)


def hold_out(data: dict[str, Dataset], fraction: float, names: list[str]) -> dict[str, Dataset]:
    """Move a fraction of the training rows to validation, each class in like shares."""
    rows = data["train"].cast_column("labels", ClassLabel(names=names))
    split = rows.train_test_split(fraction, stratify_by_column="labels", seed=HELD_OUT_SEED)
    text = f"{len(split['test'])} of {len(rows)} training rows are held out for validation"
    print(text, file=sys.stderr)
    return {**data, "train": split["train"], "validation": split["test"]}
