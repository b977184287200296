"""Choosing and changing columns: functions from a table to one with other columns."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from minift.data.features import ClassLabel, Features, Value, as_array, cast_array, check_names
from minift.data.indices import take_rows
from minift.data.table import AnyTable, Table
from minift.errors import ColumnError, DataError


def select_columns(table: AnyTable, column_names: str | Sequence[str]) -> AnyTable:
    """Return these columns, in this order."""
    names = table.check_columns(column_names)
    return choose_columns(table, {name: name for name in names})


def remove_columns(table: AnyTable, column_names: str | Sequence[str]) -> AnyTable:
    """Return all columns but these."""
    names = table.check_columns(column_names)
    return choose_columns(table, {name: name for name in table.features if name not in names})


def rename_column(table: AnyTable, original_column_name: str, new_column_name: str) -> AnyTable:
    """Return the table with another name for one column."""
    return rename_columns(table, {original_column_name: new_column_name})


def rename_columns(table: AnyTable, column_mapping: Mapping[str, str]) -> AnyTable:
    """Return the table with other names for the columns that are keys."""
    table.check_columns(column_mapping)
    return choose_columns(table, {name: column_mapping.get(name, name) for name in table.features})


def choose_columns(table: AnyTable, new_names: Mapping[str, str]) -> AnyTable:
    """Return the columns that are keys, under the names that are values."""
    names = list(new_names.values())
    if len(set(names)) < len(names) or any(old and not new for old, new in new_names.items()):
        raise ColumnError("two columns would have one name, or one would lose its name", got=names)

    def renamed(by_column: Mapping[str, Any]) -> dict[str, Any]:
        return {new: by_column[old] for old, new in new_names.items() if old in by_column}

    shown = table.row_format.columns
    if shown is not None:
        shown = tuple(new_names[name] for name in shown if name in new_names)
    return table.replace(
        data=table.data.select(list(new_names)).rename_columns(names),
        features=Features(renamed(table.features)),
        digests=renamed(table.digests),
        row_format=replace(table.row_format, columns=shown),
    )


def add_column(table: AnyTable, name: str, column: Any, feature: Any = None) -> AnyTable:
    """Return the table with one more column at the end.

    Args:
        table: the input.
        name: of the new column.
        column: as many values as there are rows.
        feature: what the column holds, inferred by default.
    """
    if name in table.features:
        raise ColumnError(f"the column {name!r} is there already", do="remove or rename it")
    values = as_array(name, column, feature)
    if len(values) != len(table):
        raise DataError(f"column {name!r} does not fit", got=len(values), expected=len(table))
    feature = feature or Features.from_arrow_schema(pa.schema([(name, values.type)]))[name]
    table = flatten_indices(table)
    shown = table.row_format.columns
    return table.replace(
        data=table.data.append_column(name, values),
        features=Features({**table.features, name: feature}),
        digests=dict(table.digests),
        row_format=replace(table.row_format, columns=shown and (*shown, name)),
    )


def replace_column(table: AnyTable, name: str, values: Any, feature: Any) -> AnyTable:
    """Return the same rows with other values, in the rows' order, in the place of a column."""
    table = flatten_indices(table)
    return table.replace(
        data=table.data.set_column(table.column_names.index(name), name, values),
        features=Features({**table.features, name: feature}),
        digests={column: digest for column, digest in table.digests.items() if column != name},
    )


def cast_column(table: AnyTable, column: str, feature: Any) -> AnyTable:
    """Return the column as another feature; a ClassLabel makes numbers of its names.

    From one ClassLabel to another, classes keep their names, and get the numbers there.
    """
    table.check_columns([column])
    values = cast_array(column, table.arrow_column(column), feature, stored=table.features[column])
    return replace_column(table, column, values, feature)


def cast(table: AnyTable, features: Features) -> AnyTable:
    """Return all columns as other features, which name the same columns in any order."""
    check_names(features, table.features)
    for name, feature in features.items():
        if feature != table.features[name]:
            table = cast_column(table, name, feature)
    return select_columns(table, list(features))


def class_encode_column(table: AnyTable, column: str, include_nulls: bool = False) -> AnyTable:
    """Return the column as a ClassLabel, whose names are the sorted values, as strings.

    Args:
        table: the input.
        column: holds text or numbers.
        include_nulls: make a class "None" of missing values, which stay missing otherwise.
    """
    return encode_classes([table], column, include_nulls)[0]


def encode_classes(tables: Sequence[AnyTable], column: str, nulls: bool) -> list[AnyTable]:
    """Return tables with a column as one ClassLabel, whose names are the values in all of them.

    A table whose labels are all -1, as a test split's often are, adds no class.
    """
    texts = [texts_of(table, column, nulls) for table in tables]
    labelled = [some for some in texts if set(some) != {"-1"}] or texts
    names = sorted({text for some in labelled for text in some if text is not None})
    numbers = [n for n in map(ClassLabel.spelling, names) if isinstance(n, float)]
    if numbers != sorted(numbers):
        order = "cast_column to ClassLabel(names=sorted(names, key=float)) for that of numbers"
        warnings.warn(f"the classes of {column!r} are in the order of text, {names}; {order}")
    feature = ClassLabel(names=names)
    arrays = [cast_array(column, pa.array(some, pa.string()), feature) for some in texts]
    return [replace_column(t, column, a, feature) for t, a in zip(tables, arrays, strict=True)]


def texts_of(table: Table, column: str, nulls: bool) -> list[str | None]:
    """Return a column's values as text; missing ones as None, or with `nulls` as "None"."""
    values = table.arrow_column(column).to_pylist()
    if not isinstance(table.features[column], Value):
        got = table.features[column]
        raise DataError(f"{column!r} holds neither text nor numbers to encode", got=got)
    return [None if v is None and not nulls else str(v) for v in values]


def flatten_indices(table: AnyTable) -> AnyTable:
    """Return the same rows as all rows of their data, in their order."""
    if isinstance(table.indices, range) and len(table) == table.data.num_rows:
        return table
    return table.replace(data=take_rows(table.data, table.indices), indices=None)
