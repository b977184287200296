"""The same rows as Python objects, numpy arrays, torch tensors, data frames or Arrow tables."""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.features import objects
from minift.data.ragged import is_flat
from minift.errors import ConfigError, DataError

TYPES = ("numpy", "torch", "pandas", "arrow", "transform")


@dataclass(frozen=True)
class Format:
    """How a dataset shows its rows.

    Attributes:
        type: None (or "python"), "numpy", "torch", "pandas", "arrow", or "transform".
        columns: the columns shown, or None for all.
        output_all_columns: show the other columns too, as Python objects.
        options: for torch: `dtype`, `device`.
        transform: for "transform": a function of a batch (a dict of lists).
    """

    type: str | None = None
    columns: tuple[str, ...] | None = None
    output_all_columns: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.type == "python":
            object.__setattr__(self, "type", None)
        if self.type is not None and self.type not in TYPES:
            raise ConfigError(f"no format is called {self.type!r}", expected=TYPES)
        if self.type == "pandas" and importlib.util.find_spec("pandas") is None:
            raise ConfigError("the format 'pandas' needs pandas", do="pip install pandas")


def rows_of(batch: Any, count: int) -> Iterator[Any]:
    """The rows of a formatted batch one by one: dicts, or tables or data frames of one row."""
    for i in range(count):
        if isinstance(batch, pa.Table):
            yield batch.slice(i, 1)
        elif hasattr(batch, "iloc"):
            yield batch.iloc[i : i + 1].reset_index(drop=True)
        else:
            yield {name: values[i] for name, values in batch.items()}


def to_lists(table: pa.Table) -> dict[str, list[Any]]:
    """A dict of Python lists."""
    return {name: to_list(table.column(name)) for name in table.column_names}


def to_list(column: pa.ChunkedArray) -> list[Any]:
    if not is_flat(column.type) or column.null_count:
        return objects(column)
    rows: list[Any] = []  # slices of one flat list: several times faster than to_pylist
    for chunk in column.chunks:
        if chunk.values.null_count:
            rows += chunk.to_pylist()
            continue
        offsets = chunk.offsets.to_numpy()
        start = int(offsets[0]) if len(offsets) else 0
        values = chunk.values.to_numpy()[start : offsets[-1] if len(offsets) else 0].tolist()
        ends = (offsets - start).tolist()
        rows += [values[a:b] for a, b in itertools.pairwise(ends)]
    return rows


def format_batch(table: pa.Table, form: Format) -> Any:
    """The rows of a table, as the format says; a dict by column except for arrow and pandas."""
    shown = [n for n in table.column_names if form.columns is None or n in form.columns]
    if form.type in (None, "arrow", "pandas"):
        table = table if form.output_all_columns else table.select(shown)
        if form.type == "arrow":
            return table
        return to_lists(table) if form.type is None else to_frame(table)
    if form.transform is not None:
        batch = dict(form.transform(to_lists(table.select(shown))))
    else:
        convert = to_numpy if form.type == "numpy" else to_torch
        batch = {name: convert(name, table.column(name), form.options) for name in shown}
    if form.output_all_columns:
        rest = [name for name in table.column_names if name not in shown]
        batch |= to_lists(table.select(rest))
    return batch


def to_frame(table: pa.Table) -> Any:
    """A data frame; integers of which some are missing stay exact, as Python objects."""
    import pandas

    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        plain = "arrow.json" not in str(column.type)
        columns[name] = column.to_pandas(integer_object_nulls=True) if plain else objects(column)
    return pandas.DataFrame(columns)


def to_numpy(name: str, column: pa.ChunkedArray, options: dict[str, Any]) -> Any:
    """Rows of equal shape as one array, ragged rows as an array of objects; widths are kept.

    Missing values are NaN: integers that have some become float64.
    """
    kind, depth, nulls = leaves(column)
    whole = pa.types.is_integer(kind)
    if not (whole or pa.types.is_floating(kind) or (pa.types.is_boolean(kind) and not nulls)):
        return filled(to_list(column))
    dtype = options.get("dtype") or (np.float64 if whole and nulls else kind.to_pandas_dtype())
    return as_numpy(to_list(column), dtype, depth)


def leaves(column: pa.ChunkedArray) -> tuple[pa.DataType, int, int]:
    """What is in lists of lists: its type, how many levels of lists, how many values missing."""
    is_list = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    depth = 0
    while any(test(column.type) for test in is_list):
        column, depth = pc.list_flatten(column), depth + 1
    return column.type, depth, column.null_count


def as_numpy(values: list[Any], dtype: Any, depth: int) -> np.ndarray:
    """One array if all rows have one shape, else an array of arrays (None where a row is)."""
    if depth == 0 or not values:
        return np.asarray(values, dtype=dtype)
    rows: list[Any] = [None if v is None else as_numpy(v, dtype, depth - 1) for v in values]
    shapes = {None if row is None else row.shape for row in rows}
    return filled(rows) if len(shapes) > 1 or None in shapes else np.stack(rows)


def filled(values: list[Any]) -> np.ndarray:
    """An array of objects; numpy would make a block of rows that happen to have one shape."""
    rows = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        rows[i] = value
    return rows


def to_torch(name: str, column: pa.ChunkedArray, options: dict[str, Any]) -> Any:
    """Integers as int64, floats as float32; ragged rows as a list; what is no number as it is."""
    kind, _, nulls = leaves(column)
    if nulls and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(
            f"the column {name!r} of type {kind} has missing values, which a tensor cannot hold",
            do="filter them out, or fill them with map",
        )
    return tensors(to_numpy(name, column, {}), options)


def tensors(array: Any, options: dict[str, Any]) -> Any:
    """A tensor, or a list of them where shapes differ; text and None stay."""
    import torch

    if not isinstance(array, np.ndarray):
        return array
    if array.dtype == object:
        return [tensors(row, options) for row in array]
    kinds = {"i": np.int64, "u": np.int64, "f": np.float32, "b": np.bool_}
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError("a number is too large for a tensor of int64", got=int(array.max()))
    return torch.as_tensor(array.astype(kinds[array.dtype.kind]), **options)
