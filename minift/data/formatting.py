"""The same rows as Python objects, numpy arrays, torch tensors, data frames or Arrow tables."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.data.features import LISTS, Json, from_arrow, holds, to_objects
from minift.data.ragged import is_flat, split_rows
from minift.errors import ConfigError, DataError

TYPES = ("numpy", "torch", "pandas", "arrow", "transform")


@dataclass(frozen=True)
class Format:
    """How a table shows its rows.

    Attributes:
        type: None (or "python"), "numpy", "torch", "pandas", "arrow", or "transform".
        columns: the columns shown, or None for all.
        output_all_columns: show the other columns too, as Python objects.
        options: for torch: `dtype`, `device`; for numpy: `dtype`.
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


def format_batch(rows: pa.Table, row_format: Format) -> Any:
    """Return rows in a format: an Arrow table, a data frame, or else a dict by column."""
    names = rows.column_names
    shown = [name for name in names if row_format.columns is None or name in row_format.columns]
    if row_format.type in (None, "arrow", "pandas"):
        rows = rows if row_format.output_all_columns else rows.select(shown)
        if row_format.type == "arrow":
            return rows
        return to_lists(rows) if row_format.type is None else to_frame(rows)
    if row_format.transform is not None:
        batch = dict(row_format.transform(to_lists(rows.select(shown))))
    else:
        convert = to_numpy if row_format.type == "numpy" else to_torch
        batch = {name: convert(name, rows.column(name), row_format.options) for name in shown}
    if row_format.output_all_columns:
        batch |= to_lists(rows.select([name for name in names if name not in shown]))
    return batch


def rows_of(batch: Any, num_rows: int) -> Iterator[Any]:
    """Yield the rows of a formatted batch: dicts, or tables or data frames of one row."""
    for i in range(num_rows):
        if isinstance(batch, pa.Table):
            yield batch.slice(i, 1)
        elif hasattr(batch, "iloc"):
            yield batch.iloc[i : i + 1].reset_index(drop=True)
        else:
            yield {name: values[i] for name, values in batch.items()}


def to_lists(rows: pa.Table) -> dict[str, list[Any]]:
    """Return {column: list of Python objects}."""
    return {name: to_list(rows.column(name)) for name in rows.column_names}


def to_list(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python objects."""
    if not is_flat(column.type) or column.null_count:
        return to_objects(column)
    rows: list[Any] = []
    for chunk in column.chunks:
        offsets, values = chunk.offsets.to_numpy(), chunk.values
        if values.null_count:
            return to_objects(column)
        flat = values.to_numpy()[offsets[0] : offsets[-1]]
        rows += split_rows(flat, offsets[1:] - offsets[0])
    return rows


def to_frame(rows: pa.Table) -> Any:
    """Return a data frame; integers of which some are missing stay exact, as Python objects."""
    import pandas

    columns = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        json = holds(from_arrow(column.type), Json)
        columns[name] = to_objects(column) if json else column.to_pandas(integer_object_nulls=True)
    return pandas.DataFrame(columns)


def to_numpy(name: str, column: pa.ChunkedArray, options: dict[str, Any]) -> Any:
    """Return rows of equal shape as one array, ragged rows as an array of objects.

    Missing values are NaN: integers that have some become float64. Other widths are kept.
    """
    type_, depth, nulls = leaves(column)
    integers = pa.types.is_integer(type_)
    bools = pa.types.is_boolean(type_) and not nulls
    if not (integers or bools or pa.types.is_floating(type_)):
        return array_of_objects(to_list(column))
    inferred = np.float64 if integers and nulls else type_.to_pandas_dtype()
    return stack_rows(to_list(column), options.get("dtype") or inferred, depth)


def leaves(column: pa.ChunkedArray) -> tuple[pa.DataType, int, int]:
    """Return the type inside lists of lists, how many levels of lists, and how many nulls."""
    depth = 0
    while isinstance(column.type, LISTS):
        column, depth = pc.list_flatten(column), depth + 1
    return column.type, depth, column.null_count


def stack_rows(values: list[Any], dtype: Any, depth: int) -> np.ndarray:
    """Return one array if all rows have one shape, else an array of arrays (None for a null)."""
    if depth == 0 or not values:
        return np.asarray(values, dtype=dtype)
    rows: list[Any] = [None if v is None else stack_rows(v, dtype, depth - 1) for v in values]
    shapes = {None if row is None else row.shape for row in rows}
    return array_of_objects(rows) if len(shapes) > 1 or None in shapes else np.stack(rows)


def array_of_objects(values: list[Any]) -> np.ndarray:
    """Return a 1-D array; numpy would make a block of rows that happen to have one shape."""
    return np.fromiter(values, dtype=object, count=len(values))


def to_torch(name: str, column: pa.ChunkedArray, options: dict[str, Any]) -> Any:
    """Return integers as int64, floats as float32, ragged rows as a list; other values as is."""
    type_, _, nulls = leaves(column)
    if nulls and (pa.types.is_integer(type_) or pa.types.is_boolean(type_)):
        what = f"the column {name!r} of type {type_} has missing values, which a tensor cannot hold"
        raise DataError(what, do="filter them out, or fill them with map")
    return to_tensors(to_numpy(name, column, {}), options)


def to_tensors(array: Any, options: dict[str, Any]) -> Any:
    """Return a tensor, or a list of them where shapes differ; text and None stay."""
    import torch

    if not isinstance(array, np.ndarray):
        return array
    if array.dtype == object:
        return [to_tensors(row, options) for row in array]
    dtypes = {"i": np.int64, "u": np.int64, "f": np.float32, "b": np.bool_}
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError("a number is too large for a tensor of int64", got=int(array.max()))
    return torch.as_tensor(array.astype(dtypes[array.dtype.kind]), **options)
