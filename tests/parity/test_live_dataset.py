"""Random programs on minift's Dataset and on that of `datasets`, compared after each step.

A program is a random table and one to six operations on it. After each, both sides must have the
same rows in the same order, the same features and columns and the same format, or both must have
raised. What differs on purpose is in DIFFERENCES, which is consulted in `unexplained` only. After
a difference that is explained, minift goes on from what the peer has. MINIFT_EXAMPLES sets the
number of programs.
"""

import itertools
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import minift

EXAMPLES = int(os.environ.get("MINIFT_EXAMPLES", "60"))


@dataclass(frozen=True)
class Step:
    """One operation: a method of both Datasets, or a function in SPECIAL, and its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """One thing in which the two sides differ after a step.

    Attributes:
        where: "raised", "columns", "rows", "format", "feature", "values" or "answer".
        column: in which, for the last three.
        ours, theirs: what the two sides have there; for "raised" an exception or None.
        step: after which.
        before: the peer's features before it, in JSON form.
        format: the kind of format before it.
        hides: whether that format leaves out columns.
        rows: the peer's number of rows before it.
        features: (minift's, the peer's) after it.
    """

    where: str
    column: str | None
    ours: Any
    theirs: Any
    step: Step
    before: dict[str, Any]
    format: str | None
    rows: int
    hides: bool = False
    features: Any = ({}, {})


# --------------------------------------------------------------------- what is explained, and why


@dataclass(frozen=True)
class Explained:
    name: str
    peer: str
    minift: str
    covers: Callable[[Gap], bool]


def raised(gap: Gap, side: str) -> str:
    """What one side alone raised, as text; "" for any other gap."""
    if gap.where != "raised" or (gap.ours is None) == (gap.theirs is None):
        return ""
    error = getattr(gap, side)
    return "" if error is None else f"{type(error).__name__}: {error}"


def without_missing(value: Any) -> Any:
    """Plain objects in which a dict has no key for what is missing, at any depth."""
    if isinstance(value, dict):
        kept = sorted((k, v) for k, v in value.items() if v is not None)
        return {k: without_missing(v) for k, v in kept}
    value = loose(value)
    return [without_missing(item) for item in value] if isinstance(value, list) else value


def by_name(value: Any) -> Any:
    """The same with the keys of each dict in their order."""
    if isinstance(value, dict):
        return {key: by_name(value[key]) for key in sorted(value)}
    return [by_name(item) for item in value] if isinstance(value, list) else value


def is_step(gap: Gap, *names: str) -> bool:
    return gap.step.name in names


def returns(gap: Gap, *names: str) -> bool:
    """Whether the step is a map whose function is one of these."""
    return is_step(gap, "map") and gap.step.arguments["function"] in names


def narrowed(gap: Gap) -> bool:
    """Whether the features differ only in that lists of int64 there are int32 here."""
    if gap.where != "feature" or not is_step(gap, "map"):
        return False
    return repr(gap.ours).replace("int32", "int64") == repr(gap.theirs) and "List" in repr(gap.ours)


def contents(gap: Gap) -> bool:
    return gap.where in ("feature", "values", "rows", "columns", "format", "answer")


def retyped(gap: Gap) -> bool:
    """Whether map returned another kind of values for a column, and the peer cast them back."""
    old, (ours, theirs) = gap.before.get(gap.column), gap.features
    return (
        is_step(gap, "map")
        and gap.where in ("feature", "values")
        and old is not None
        and theirs[gap.column] == old != ours[gap.column]
    )


def with_floats(value: Any) -> Any:
    """Integers as floats."""
    if isinstance(value, dict):
        return {key: with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_floats(item) for item in value]
    return float(value) if type(value) is int else value


READING = ("read formatted", "read", "iterate", "iter", "column")
CHECKED = (
    "ColumnError",
    "cannot become",
    "Index 0 out of range",
    "Sorting not supported",
    "ConfigError",
)
LATE = ("late key", "two keys", "some None")


def in_arrays(gap: Gap) -> bool:
    """Whether arrays or tensors that were read hold the same, apart from their type."""
    if gap.where != "answer" or not is_step(gap, *READING):
        return False
    ours, theirs = by_name(loose(gap.ours)), by_name(loose(gap.theirs))
    if "None" in repr(theirs):  # the peer's integers beside None are floats, also in dicts
        ours, theirs = with_floats(ours), with_floats(theirs)
    return same(ours, theirs)


def mapped(function: str, column: str = "int", **options: Any) -> Step:
    return Step("map", {"function": function, "column": column, "options": options})


DIFFERENCES = [
    Explained(
        "dicts with different keys",
        "a struct, which fills each dict with None for the keys of the others",
        "Json, which keeps each dict's own keys",
        lambda gap: (
            (gap.where == "feature" and "Json" in repr(gap.ours))
            or (gap.where == "values" and same(*map(without_missing, (gap.ours, gap.theirs))))
        ),
    ),
    Explained(
        "an empty dataset's features",
        "casts and maps of no rows leave the features (and columns) as they are",
        "the features become what was asked for, as with rows",
        lambda gap: (
            gap.rows == 0
            and gap.where in ("feature", "columns")
            and is_step(
                gap, "from_dict", "cast", "cast_column", "class_encode_column", "concatenate"
            )
        ),
    ),
    Explained(
        "an empty part",
        "IndexError for a skip or shard that leaves no rows of a selection",
        "no rows",
        lambda gap: (
            "IndexError" in raised(gap, "theirs")
            and (is_step(gap, "skip", "shard") or len(gap.step.arguments.get("indices", "x")) == 0)
        ),
    ),
    Explained(
        "a negative number of rows",
        "take(-1) takes none, skip(-1) fails or not",
        "an error",
        lambda gap: (
            is_step(gap, "take", "skip")
            and gap.step.arguments["n"] < 0
            and "ConfigError" in raised(gap, "ours")
        ),
    ),
    Explained(
        "negative indices of select",
        "OverflowError",
        "they count from the end, as in ds[-1]",
        lambda gap: is_step(gap, "select") and "OverflowError" in raised(gap, "theirs"),
    ),
    Explained(
        "no columns left",
        "no rows either",
        "the rows are still counted",
        lambda gap: gap.where == "rows" and gap.features == ({}, {}),
    ),
    Explained(
        "a filter with too few answers",
        "drops the rows without one",
        "an error",
        lambda gap: is_step(gap, "filter") and "answers for" in raised(gap, "ours"),
    ),
    Explained(
        "text and missing values in arrays",
        "numpy text, and arrays of no dimension for values beside None or inside dicts",
        "arrays of Python objects; floats as wide as they are stored (numpy); the columns of "
        "output_all_columns in their own order",
        in_arrays,
    ),
    Explained(
        "integers with missing values as tensors",
        "float32, in which large numbers change",
        "an error",
        lambda gap: "a tensor cannot hold" in raised(gap, "ours"),
    ),
    Explained(
        "a column that map gives values of another kind",
        "cast back to the old type where that can be done: str(x) of a number is a number again",
        "the values that the function returned",
        retyped,
    ),
    Explained(
        "keys and None in some rows only",
        "a key that the first row lacks is dropped or a KeyError; None deletes the row, or all",
        "None in the rows without the key; an error for None beside dicts",
        lambda gap: returns(gap, *LATE),
    ),
    Explained(
        "a column that the format hides",
        "KeyError when it is asked for",
        "it is read",
        lambda gap: (
            is_step(gap, "read formatted", "column") and "KeyError" in raised(gap, "theirs")
        ),
    ),
    Explained(
        "map that returns no rows at all",
        "no rows, and the columns of the input",
        "no rows, and the columns that were returned",
        lambda gap: (
            returns(gap, "no rows", "no rows of all")
            and gap.where in ("columns", "feature", "format")
        ),
    ),
    Explained(
        "operations on a dataset with a format",
        "some go through the format: class names become 'tensor(1.)', numbers beside None float32",
        "a format is only for reading and for functions",
        lambda gap: (
            gap.format is not None
            and is_step(gap, "class_encode_column", "flatten_indices", "unique", "add_column")
            and gap.where in ("feature", "values", "answer")
        ),
    ),
    Explained(
        "a joined dataset's format",
        "None, where the formats name the same columns in another order: that of a set",
        "the format that both have",
        lambda gap: (
            gap.where == "format" and is_step(gap, "concatenate") and gap.theirs["type"] is None
        ),
    ),
    Explained(
        "side by side with a dataset without rows",
        "it is left out, with its columns",
        "an error, unless none has rows",
        lambda gap: (
            is_step(gap, "concatenate")
            and gap.step.arguments["axis"] == 1
            and raised(gap, "ours") != ""
            and (gap.rows == 0 or gap.step.arguments["with"] == "no rows")
        ),
    ),
    Explained(
        "an array of negative indices on a selection",
        "IndexError",
        "they count from the end",
        lambda gap: is_step(gap, "read") and "non-negative" in raised(gap, "theirs"),
    ),
    Explained(
        "unique of a shuffled dataset",
        "in the order of the rows before shuffling, if there are as many",
        "in the order of the rows",
        lambda gap: (
            is_step(gap, "unique")
            and gap.where == "answer"
            and sorted(map(repr, gap.ours)) == sorted(map(repr, gap.theirs))
        ),
    ),
    Explained(
        "numbers and text that map returns for one column",
        "Json, or text",
        "an error",
        lambda gap: returns(gap, "int or text") and raised(gap, "ours") != "",
    ),
    Explained(
        "numbers that no class has",
        "stay in the column: the check in ClassLabel.cast_storage never applies",
        "an error; -1 is unlabelled",
        lambda gap: (
            is_step(gap, "cast", "cast_column", "map")
            and "invalid class label" in raised(gap, "ours")
        ),
    ),
    Explained(
        "lists beside None as a numpy column",
        "AttributeError",
        "an array of arrays and None",
        lambda gap: (
            is_step(gap, "read formatted") and "has no attribute 'shape'" in raised(gap, "theirs")
        ),
    ),
    Explained(
        "types that only later batches of map show",
        "TypeError where the first batch has empty lists or None only",
        "the types of all batches together",
        lambda gap: is_step(gap, "map") and "Couldn't cast array" in raised(gap, "theirs"),
    ),
    Explained(
        "a column renamed to its own name",
        "ValueError",
        "nothing to do",
        lambda gap: (
            "already in the dataset" in raised(gap, "theirs") and is_step(gap, "rename_column")
        ),
    ),
    Explained(
        "arguments for an empty dataset",
        "not looked at",
        "checked as for any other",
        lambda gap: (
            gap.rows == 0
            and is_step(
                gap, "map", "filter", "train_test_split", "select", "sort", "cast", "cast_column"
            )
            and any(text in raised(gap, "ours") for text in CHECKED)
        ),
    ),
    Explained(
        "arrays that go through map",
        "an array of no dimension or of two in a struct or list cannot be written",
        "it can",
        lambda gap: gap.format is not None and "Arrow" in raised(gap, "theirs"),
    ),
    Explained(
        "drop_last_batch of the only batch",
        "the whole dataset",
        "no rows",
        lambda gap: (
            is_step(gap, "map")
            and contents(gap)
            and gap.step.arguments["options"].get("drop_last_batch", False)
            and (gap.step.arguments["options"]["batch_size"] or 0) > gap.rows
        ),
    ),
    Explained(
        "a batch for which map returns no rows beside columns that are kept",
        "the batch vanishes, or fails, by the order of the columns",
        "an error",
        lambda gap: "returned 0 rows for" in raised(gap, "ours"),
    ),
    Explained(
        "lists of integers that map returns",
        "int64, but input_ids int32 and masks int8",
        "int32 where the values fit",
        narrowed,
    ),
    Explained(
        "integers beside None, row by row, as numpy",
        "each row has the type of its own value",
        "iterating gives float64, ds[i] int64: the type is that of the rows read together",
        lambda gap: (
            (
                gap.where == "answer"
                and is_step(gap, "read formatted", "iterate", "column")
                and same(*(with_floats(by_name(loose(side))) for side in (gap.ours, gap.theirs)))
            )
            or (returns(gap, "text") and gap.format == "numpy" and "nan" in repr(gap.theirs))
        ),
    ),
]


def unexplained(gaps: list[Gap]) -> list[Gap]:
    """The gaps that no line of the table covers."""
    return [gap for gap in gaps if not any(one.covers(gap) for one in DIFFERENCES)]


# ------------------------------------------------------------------------------------- comparison


def plain_feature(said: Any) -> Any:
    """The JSON form of a feature, without what one side spells out and the other implies."""
    if isinstance(said, dict):
        implied = {"length": -1, "decode": True, "id": None}
        kept = {k: v for k, v in said.items() if k not in implied or v != implied[k]}
        return {k: plain_feature(v) for k, v in kept.items()}
    return said


def features_of(dataset: Any) -> dict[str, Any]:
    return plain_feature(dataset.features.to_dict())


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape, dtype and value; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(map(same, a.ravel(), b.ravel()))
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (float, np.floating)):
        return a == b or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def loose(value: Any) -> Any:
    """Plain Python objects with floats at 32 bits: what is the same whatever the container."""
    if isinstance(value, (np.ndarray, torch.Tensor, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: loose(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [loose(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def gaps_between(ours: Any, theirs: Any, **about: Any) -> list[Gap]:
    """Everything in which two datasets differ."""
    columns = ours.column_names, theirs.column_names
    about["features"] = features = features_of(ours), features_of(theirs)
    found = [Gap("columns", None, *columns, **about)] if columns[0] != columns[1] else []
    if len(ours) != len(theirs):
        found.append(Gap("rows", None, len(ours), len(theirs), **about))
    forms = ours.format, theirs.format
    shown = [{**form, "columns": sorted(form["columns"]), "format_kwargs": {}} for form in forms]
    if shown[0] != shown[1]:
        found.append(Gap("format", None, *forms, **about))
    if not columns[1]:
        return found
    rows = ours.with_format(None)[:], theirs.with_format(None)[:]
    for where, (a, b) in (("feature", features), ("values", rows)):
        shared = [name for name in a if name in b]
        found += [Gap(where, n, a[n], b[n], **about) for n in shared if not same(a[n], b[n])]
    return found


def gaps_of_answers(ours: Any, theirs: Any, **about: Any) -> list[Gap]:
    """Everything in which two answers differ, by column where they are dicts of columns."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and list(ours) == list(theirs):
        shared = [(name, ours[name], theirs[name]) for name in ours]
    else:
        shared = [(None, ours, theirs)]
    return [Gap("answer", name, a, b, **about) for name, a, b in shared if not same(a, b)]


# ------------------------------------------------------------------------- functions of map, filter


def size_of(value: Any) -> int:
    """A small number that depends on a value alone, formatted or not."""
    return sum(map(ord, repr(loose(value)))) % 5


def text_of(value: Any) -> str:
    return repr(loose(value))


def pop(row: Any, name: str, _: Any) -> Any:
    row.pop(name)
    return dict(row)


def assign(row: Any, name: str, _: Any) -> dict[str, Any]:
    row["put"] = size_of(row[name])
    return {}


def assign_and_forget(row: Any, name: str, _: Any) -> None:
    row["put"] = 1


ROW = {
    "text": lambda row, name, _: {"text": text_of(row[name])},
    "number": lambda row, name, _: {name: size_of(row[name])},
    "as text": lambda row, name, _: {name: text_of(row[name])},
    "half": lambda row, name, _: {"half": size_of(row[name]) / 2},
    "same": lambda row, name, _: {name: row[name]},
    "copy": lambda row, name, _: {"copy": row[name]},
    "all": lambda row, name, _: dict(row),
    "missing": lambda row, name, _: {name: None},
    "list": lambda row, name, _: {"list": list(range(size_of(row[name])))},
    "texts": lambda row, name, _: {"texts": ["a"] * size_of(row[name])},
    "ids": lambda row, name, _: {
        "input_ids": [7] * size_of(row[name]),
        "attention_mask": [1] * size_of(row[name]),
    },
    "array": lambda row, name, _: {"array": np.arange(size_of(row[name]))},
    "block": lambda row, name, _: {"block": np.ones((2, 2), np.float32)},
    "tensor": lambda row, name, _: {"tensor": torch.ones(2) * size_of(row[name])},
    "dict": lambda row, name, _: {"dict": {"a": size_of(row[name]), "b": ["x"]}},
    "position": lambda row, name, i: {"position": i},
    "sometimes missing": lambda row, name, _: {"some": size_of(row[name]) or None},
    "int or float": lambda row, name, _: {"mixed": 1 if size_of(row[name]) % 2 else 1.5},
    "int or text": lambda row, name, _: {"mixed": 1 if size_of(row[name]) % 2 else "one"},
    "late key": lambda row, name, _: {"late": 1} if size_of(row[name]) % 2 else {},
    "two keys": lambda row, name, _: {f"key{size_of(row[name]) % 2}": 1},
    "some None": lambda row, name, _: {"new": 1} if size_of(row[name]) % 2 else None,
    "nothing": lambda row, name, _: None,
    "empty": lambda row, name, _: {},
    "wrong": lambda row, name, _: 3,
    "fails": lambda row, name, _: row["no such column"],
    "pop": pop,
    "assign": assign,
    "assign and forget": assign_and_forget,
}


def count(batch: Any) -> int:
    return len(next(iter(batch.values()))) if len(batch) else 0


def explode(batch: Any, name: str, _: Any) -> dict[str, Any]:
    """A row for each item of a list; the other columns are repeated."""
    times = [size_of(value) % 3 for value in batch[name]]
    return {
        key: [v for v, n in zip(batch[key], times, strict=True) for _ in range(n)] for key in batch
    }


def every_second(batch: Any, name: str, _: Any) -> dict[str, Any]:
    return {key: list(values)[::2] for key, values in batch.items()}


BATCH = {
    "text": lambda batch, name, _: {"text": [text_of(v) for v in batch[name]]},
    "number": lambda batch, name, _: {name: [size_of(v) for v in batch[name]]},
    "as text": lambda batch, name, _: {name: [text_of(v) for v in batch[name]]},
    "same": lambda batch, name, _: {name: batch[name]},
    "copy": lambda batch, name, _: {"copy": batch[name]},
    "all": lambda batch, name, _: dict(batch),
    "missing": lambda batch, name, _: {name: [None] * count(batch)},
    "list": lambda batch, name, _: {"list": [list(range(size_of(v))) for v in batch[name]]},
    "ids": lambda batch, name, _: {
        "input_ids": [[7] * size_of(v) for v in batch[name]],
        "attention_mask": [[1] * size_of(v) for v in batch[name]],
    },
    "array": lambda batch, name, _: {"array": np.arange(count(batch))},
    "floats": lambda batch, name, _: {"floats": np.ones(count(batch), np.float32)},
    "block": lambda batch, name, _: {"block": np.ones((count(batch), 3))},
    "tensor": lambda batch, name, _: {"tensor": torch.arange(count(batch))},
    "position": lambda batch, name, i: {"position": i},
    "sizes": lambda batch, name, _: {"sizes": [count(batch)] * count(batch)},
    "twice": lambda batch, name, _: {key: list(v) * 2 for key, v in batch.items()},
    "second": every_second,
    "explode": explode,
    "one row": lambda batch, name, _: {"one": [count(batch)]},
    "no rows": lambda batch, name, _: {"none": []},
    "no rows of all": lambda batch, name, _: {key: [] for key in batch},
    "uneven": lambda batch, name, _: {"p": [1] * count(batch), "q": [1] * (count(batch) + 1)},
    "scalar": lambda batch, name, _: {"scalar": 1},
    "string": lambda batch, name, _: {"string": "ab"},
    "nothing": lambda batch, name, _: None,
    "empty": lambda batch, name, _: {},
    "wrong": lambda batch, name, _: [1],
    "pop": pop,
    "assign and forget": assign_and_forget,
}

KEEP_ROW = {
    "all": lambda row, name, _: True,
    "none": lambda row, name, _: False,
    "odd": lambda row, name, _: size_of(row[name]) % 2 == 1,
    "present": lambda row, name, _: row[name] is not None,
    "number": lambda row, name, _: size_of(row[name]),
    "position": lambda row, name, i: i % 3 > 0,
    "fails": lambda row, name, _: row["no such column"],
}
KEEP_BATCH = {
    "all": lambda batch, name, _: [True] * count(batch),
    "none": lambda batch, name, _: [False] * count(batch),
    "odd": lambda batch, name, _: [size_of(v) % 2 == 1 for v in batch[name]],
    "array": lambda batch, name, _: np.array([size_of(v) > 1 for v in batch[name]], bool),
    "position": lambda batch, name, i: [n % 3 > 0 for n in i],
    "few": lambda batch, name, _: [True] * (count(batch) - 1),
}
FUNCTIONS = {
    ("map", False): ROW,
    ("map", True): BATCH,
    ("filter", False): KEEP_ROW,
    ("filter", True): KEEP_BATCH,
}


def make_function(step: Step) -> Callable[..., Any]:
    """The function that a step names, with the arguments that map or filter passes."""
    said = step.arguments
    function = FUNCTIONS[step.name, said["options"].get("batched", False)][said["function"]]
    names, name = said["options"].get("input_columns"), said["column"]
    indexed = said["options"].get("with_indices", False)

    def call(*args: Any) -> Any:
        row = args[0] if names is None else dict(zip(names, args, strict=False))
        return function(row, name, args[-1] if indexed else None)

    return call


# ----------------------------------------------------------------------- doing a step, on a side

numbers = itertools.count()


def apply_function(library: Any, dataset: Any, step: Step) -> Any:
    options = dict(step.arguments["options"])
    if library is datasets:  # its own would be made with dill, slowly
        options["new_fingerprint"] = f"f{next(numbers)}"
    return getattr(dataset, step.name)(make_function(step), **options)


def feature_in(library: Any, said: str) -> Any:
    """A feature of a library: a name of a Value's type, or names of classes."""
    return library.ClassLabel(names=said.split()) if " " in said else library.Value(said)


def cast_all(library: Any, dataset: Any, step: Step) -> Any:
    said = {**features_of(dataset), **step.arguments["changes"]}
    features = {
        name: feature_in(library, feature) if isinstance(feature, str) else dataset.features[name]
        for name, feature in said.items()
    }
    names = reversed(features) if step.arguments["reverse"] else features
    return dataset.cast(library.Features({name: features[name] for name in names}))


def concatenate(library: Any, dataset: Any, step: Step) -> Any:
    kind = step.arguments["with"]
    other = dataset
    if kind == "renamed":
        other = dataset.rename_columns({name: f"{name}2" for name in dataset.column_names})
    elif kind == "fewer columns":
        other = dataset.select_columns(dataset.column_names[1:] or dataset.column_names)
    elif kind == "one row":
        other = dataset.take(1)
    elif kind == "no rows":
        other = dataset.select([])
    elif kind == "another order":
        other = dataset.select_columns(dataset.column_names[::-1])
    elif kind == "a new column":
        other = library.Dataset.from_dict({"more": [1.5, None]})
    elif kind == "another type":
        other = dataset.cast_column(dataset.column_names[0], library.Value("string"))
    pair = [other, dataset] if step.arguments["swap"] else [dataset, other]
    return library.concatenate_datasets(pair, axis=step.arguments["axis"])


def read_formatted(library: Any, dataset: Any, step: Step) -> Any:
    """What a format shows of all rows, the first, and each column."""
    shown = dataset.with_format(**step.arguments["format"])
    key = step.arguments["key"]
    if key == "rows":
        return shown[:]
    if key == "row":
        return shown[len(shown) - 1]
    if key == "columns":
        return {name: shown[name][:] for name in shown.column_names}
    return dict(enumerate(shown))


SPECIAL: dict[str, Callable[..., Any]] = {
    "map": apply_function,
    "filter": apply_function,
    "cast": cast_all,
    "concatenate": concatenate,
    "read formatted": read_formatted,
    "read": lambda library, ds, step: ds[step.arguments["key"]],
    "iterate": lambda library, ds, step: list(ds),
    "iter": lambda library, ds, step: list(ds.iter(**step.arguments)),
    "column": lambda library, ds, step: list(ds[step.arguments["name"]]),
    "cast_column": lambda library, ds, step: ds.cast_column(
        step.arguments["column"], feature_in(library, step.arguments["feature"])
    ),
    "train_test_split": lambda library, ds, step: ds.train_test_split(**step.arguments["options"])[
        step.arguments["part"]
    ],
}


def do(library: Any, dataset: Any, step: Step) -> tuple[Any, Any, Exception | None]:
    """The dataset after a step (the same where it failed), its answer, its exception."""
    try:
        if step.name in SPECIAL:
            result = SPECIAL[step.name](library, dataset, step)
        else:
            result = getattr(dataset, step.name)(**step.arguments)
    except Exception as error:
        return dataset, None, error
    if isinstance(result, library.Dataset):
        return result, None, None
    return dataset, result, None


def exchange(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Each library opens what the other saved."""
    with tempfile.TemporaryDirectory() as folder:
        ours.save_to_disk(f"{folder}/ours")
        theirs.save_to_disk(f"{folder}/theirs")
        opened = datasets.load_from_disk(f"{folder}/ours", keep_in_memory=True)
        return minift.load_from_disk(f"{folder}/theirs"), opened


def rebuilt(theirs: Any, folder: str) -> Any:
    """minift's dataset with what the peer's holds."""
    path = Path(folder) / f"state-{next(numbers)}"
    theirs.save_to_disk(path)
    ours, form = minift.load_from_disk(path), theirs.format
    hides = set(form["columns"]) != set(theirs.column_names)
    ours.set_format(form["type"], form["columns"] if hides else None, form["output_all_columns"])
    return ours


def take_step(ours: Any, theirs: Any, step: Step) -> tuple[Any, Any, list[Gap]]:
    """Both datasets after a step, and in what they differ."""
    about = {"step": step, "before": features_of(theirs), "format": theirs.format["type"]}
    about["rows"] = len(theirs)
    about["hides"] = set(theirs.format["columns"]) != set(theirs.column_names)
    if step.name == "exchange":
        try:
            ours, theirs = exchange(ours, theirs)
        except Exception as error:
            return ours, theirs, [Gap("raised", None, error, None, **about)]
        return ours, theirs, gaps_between(ours, theirs, **about)
    ours, our_answer, our_error = do(minift, ours, step)
    theirs, their_answer, their_error = do(datasets, theirs, step)
    if our_error is not None and their_error is not None:
        return ours, theirs, []
    if our_error is not None or their_error is not None:
        return ours, theirs, [Gap("raised", None, our_error, their_error, **about)]
    gaps = gaps_between(ours, theirs, **about)
    if gaps:
        return ours, theirs, gaps
    return ours, theirs, gaps_of_answers(our_answer, their_answer, **about)


# ---------------------------------------------------------------------------------------- programs

small = st.integers(-9, 9)
floats = st.sampled_from([0.0, -0.0, 0.5, 1.1, -2.25, 1e300, float("nan"), float("inf")])
texts = st.sampled_from(["", "a", "b", "10", "7", "ä€", " a", "None", "0"])
CELLS = {
    "int": small,
    "big": st.sampled_from([2**62, -(2**40), 2**31, 0]),
    "float": floats,
    "text": texts,
    "bool": st.booleans(),
    "int_or_none": st.none() | small,
    "float_or_none": st.none() | floats,
    "text_or_none": st.none() | texts,
    "bool_or_none": st.none() | st.booleans(),
    "none": st.none(),
    "ids": st.lists(small, max_size=4),
    "pair": st.lists(small, min_size=2, max_size=2),
    "ids_or_none": st.none() | st.lists(small, max_size=3),
    "ids_with_none": st.lists(st.none() | small, max_size=3),
    "words": st.lists(texts, max_size=3),
    "dict": st.fixed_dictionaries({"x": small, "y": texts}),
    "ragged_dict": st.fixed_dictionaries({"x": small}, optional={"y": texts}),
    "dict_or_none": st.none() | st.fixed_dictionaries({"x": small, "y": st.none() | texts}),
    "messages": st.lists(st.fixed_dictionaries({"role": texts}), max_size=2),
}
CLASSES = ["no", "yes", "perhaps"]


@st.composite
def tables(draw: Any) -> dict[str, list[Any]]:
    """{column: values}; a column's name says what its values are."""
    names = draw(st.lists(st.sampled_from([*CELLS, "label", "label"]), min_size=1, max_size=5))
    length = draw(st.integers(0, 12) | st.integers(4, 12))
    cells = {**CELLS, "label": st.sampled_from(CLASSES)}
    return {
        name: draw(st.lists(cells[name], min_size=length, max_size=length))
        for name in dict.fromkeys(names)
    }


def build(table: dict[str, list[Any]]) -> tuple[Any, Any]:
    """The table on both sides."""
    pair = minift.Dataset.from_dict(table), datasets.Dataset.from_dict(table)
    if "label" not in table:
        return pair
    return tuple(
        dataset.cast_column("label", library.ClassLabel(names=CLASSES))
        for dataset, library in zip(pair, (minift, datasets), strict=True)
    )


class Draw:
    """Draws steps that suit a dataset, mostly."""

    def __init__(self, draw: Callable[..., Any], dataset: Any) -> None:
        self.draw, self.dataset, self.n = draw, dataset, len(dataset)
        self.names = dataset.column_names

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def rarely(self) -> bool:
        return self.draw(st.integers(0, 11)) == 11

    def name(self) -> str:
        return "missing" if self.rarely() or not self.names else self.one_of(*self.names)

    def some(self, least: int = 0) -> list[str]:
        if self.rarely() or not self.names:
            return ["missing"]
        return self.draw(
            st.lists(st.sampled_from(self.names), unique=True, min_size=least, max_size=3)
        )

    def seed(self) -> int:
        return self.draw(st.integers(0, 99))

    def indices(self, least: int) -> Any:
        most = self.n - 1 if self.n else -1
        if most < 0:
            return self.one_of([], range(0), [0])
        a, b = sorted([self.draw(st.integers(0, self.n)), self.draw(st.integers(0, self.n))])
        listed = self.draw(st.lists(st.integers(max(least, -self.n), most), max_size=self.n + 2))
        forms = [range(a, b), range(a, b, 2), range(a, b)[::-1], listed, tuple(listed)]
        forms += [np.array(listed, np.int64), np.array(listed, np.int32), [*listed, self.n]]
        return self.one_of(*forms)

    def select(self) -> Step:
        return Step("select", {"indices": self.indices(-1 if self.rarely() else 0)})

    def read(self) -> Step:
        a, b = (self.draw(st.integers(-self.n - 2, self.n + 2)) for _ in range(2))
        key = self.one_of(a, slice(a, b), slice(a, b, 2), slice(None, None, -1), np.int64(a), None)
        if self.draw(st.booleans()):
            key = self.indices(-self.n)
        return Step("read", {"key": key})

    def shuffle(self) -> Step:
        return Step("shuffle", {"seed": self.seed()})

    def sort(self) -> Step:
        names = self.some(least=1)
        reverse = self.one_of(True, False, [self.draw(st.booleans()) for _ in names])
        placed = self.one_of("at_end", "at_start")
        said = names[0] if len(names) == 1 else names
        return Step("sort", {"column_names": said, "reverse": reverse, "null_placement": placed})

    def train_test_split(self) -> Step:
        sizes = [None, 0.25, 0.5, 0.9, 1.0, 0.0, 1, 2, self.n // 2, self.n, -1]
        options: dict[str, Any] = {"seed": self.seed(), "test_size": self.one_of(*sizes)}
        if self.one_of(True, False, False):
            options["train_size"] = self.one_of(*sizes)
        if self.one_of(True, False, False):
            options["shuffle"] = False
        if self.one_of(True, False, False) or "label" in self.names:
            options["stratify_by_column"] = "label" if "label" in self.names else self.name()
        return Step("train_test_split", {"options": options, "part": self.one_of("train", "test")})

    def shard(self) -> Step:
        shards = self.draw(st.integers(1, 4))
        index = self.draw(st.integers(0, shards)) if self.rarely() else shards - 1
        contiguous = self.draw(st.booleans())
        return Step("shard", {"num_shards": shards, "index": index, "contiguous": contiguous})

    def take(self) -> Step:
        return Step(self.one_of("take", "skip"), {"n": self.draw(st.integers(-1, self.n + 1))})

    def concatenate(self) -> Step:
        kinds = ["itself", "renamed", "fewer columns", "one row", "no rows"]
        kinds += ["another order", "a new column", "another type"]
        said = {"with": self.one_of(*kinds), "swap": self.draw(st.booleans())}
        return Step("concatenate", {**said, "axis": self.one_of(0, 0, 1)})

    def rename(self) -> Step:
        if self.draw(st.booleans()):
            new = self.one_of("new", "new", "new", self.name(), "")
            old = self.name()
            return Step("rename_column", {"original_column_name": old, "new_column_name": new})
        names = self.some(least=1)
        new = self.draw(st.permutations(names)) if self.draw(st.booleans()) else list("abc")
        return Step("rename_columns", {"column_mapping": dict(zip(names, new, strict=False))})

    def columns(self) -> Step:
        names = self.some(least=1)
        said = names[0] if len(names) == 1 else names
        return Step(self.one_of("remove_columns", "select_columns"), {"column_names": said})

    def add_column(self) -> Step:
        length = self.n + 1 if self.rarely() else self.n
        kind = self.one_of(*CELLS)
        values = self.draw(st.lists(CELLS[kind], min_size=length, max_size=length))
        name = self.name() if self.rarely() else f"added_{kind}"
        if kind == "int" and self.draw(st.booleans()):
            values = np.array(values, np.int64)
        return Step("add_column", {"name": name, "column": values})

    def feature(self) -> str:
        types = ["string", "int32", "int64", "float32", "float64", "bool", "int8", "large_string"]
        return self.one_of(*types, "a b", "no yes perhaps", "c0 c1 c2 c3 c4 c5 c6 c7 c8 c9")

    def cast(self) -> Step:
        if self.draw(st.booleans()):
            return Step("cast_column", {"column": self.name(), "feature": self.feature()})
        changes = {name: self.feature() for name in self.some()}
        return Step("cast", {"changes": changes, "reverse": self.draw(st.booleans())})

    def class_encode_column(self) -> Step:
        said = {"column": self.name(), "include_nulls": self.draw(st.booleans())}
        return Step("class_encode_column", said)

    def unique(self) -> Step:
        return Step("unique", {"column": self.name()})

    def column(self) -> Step:
        return Step("column", {"name": self.name()})

    def flatten_indices(self) -> Step:
        return Step("flatten_indices")

    def iterate(self) -> Step:
        if self.draw(st.booleans()):
            return Step("iterate")
        drop = self.draw(st.booleans())
        return Step("iter", {"batch_size": self.one_of(1, 2, 3, 20), "drop_last_batch": drop})

    def form(self) -> dict[str, Any]:
        said: dict[str, Any] = {"type": self.one_of("numpy", "torch", "numpy", "torch", None)}
        if self.draw(st.booleans()):
            said["columns"] = self.some(least=1)
            if self.draw(st.booleans()):
                said["output_all_columns"] = True
        return said

    def read_formatted(self) -> Step:
        key = self.one_of("rows", "row", "columns", "all")
        return Step("read formatted", {"format": self.form(), "key": key})

    def with_format(self) -> Step:
        return Step("with_format", self.form())

    def exchange(self) -> Step:
        return Step("exchange")

    def function(self, name: str) -> Step:
        batched = self.draw(st.booleans())
        kind, options = self.one_of(*FUNCTIONS[name, batched]), {}
        if batched:
            options |= {"batched": True, "batch_size": self.one_of(1, 2, 3, None, 1000)}
        if kind == "position" or self.one_of(True, False, False):
            options["with_indices"] = True
        column = self.name()
        if self.one_of(True, False, False, False):
            options["input_columns"] = list(dict.fromkeys([column, *self.some()]))
        if name == "map":
            removed = self.one_of(None, None, self.some(), list(self.names))
            options |= {} if removed is None else {"remove_columns": removed}
            if batched and self.one_of(True, False, False, False):
                options["drop_last_batch"] = True
        return Step(name, {"function": kind, "column": column, "options": options})

    def map(self) -> Step:
        return self.function("map")

    def filter(self) -> Step:
        return self.function("filter")

    def step(self) -> Step:
        kinds = [self.select, self.read, self.shuffle, self.sort, self.train_test_split]
        kinds += [self.shard, self.take, self.concatenate, self.rename, self.columns]
        kinds += [self.add_column, self.cast, self.class_encode_column, self.unique]
        kinds += [self.column, self.flatten_indices, self.iterate, self.read_formatted]
        kinds += [self.with_format, self.exchange, self.filter, self.filter]
        return self.one_of(*kinds, *[self.map] * 9)()


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """No progress bars, and no cache of the peer's."""
    datasets.disable_progress_bars()
    datasets.disable_caching()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    datasets.enable_caching()
    datasets.enable_progress_bars()


def describe(gap: Gap) -> str:
    return (
        f"{gap.where} {gap.column or ''} after {gap.step}\n  before: {gap.before} {gap.format}"
        f"\n  minift:   {gap.ours!r}\n  datasets: {gap.theirs!r}"
    )


def parted(gap: Gap) -> bool:
    """Whether the datasets are no longer the same after a gap."""
    return gap.where != "answer"


def run(ours: Any, theirs: Any, next_step: Callable[[Any], Step | None], folder: str) -> None:
    """Both sides through a program; an AssertionError for the first gap that is not explained."""
    about = {"step": Step("from_dict"), "before": {}, "format": None, "rows": len(theirs)}
    gaps = gaps_between(ours, theirs, **about)
    while True:
        wrong = unexplained(gaps)
        assert not wrong, "\n".join(map(describe, wrong))
        if any(map(parted, gaps)):
            ours = rebuilt(theirs, folder)
        step = next_step(theirs) if theirs.column_names else None  # without, it counts no rows
        if step is None:
            return
        note(repr(step))
        ours, theirs, gaps = take_step(ours, theirs, step)


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(table=tables(), count=st.integers(1, 6), data=st.data())
def test_programs(table, count, data):
    left = iter(range(count))
    ours, theirs = build(table)

    def next_step(dataset: Any) -> Step | None:
        return None if next(left, None) is None else Draw(data.draw, dataset).step()

    with tempfile.TemporaryDirectory() as folder:
        run(ours, theirs, next_step, folder)
