"""The same rows as Python objects, numpy arrays, torch tensors or Arrow tables."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from minift.data.column import is_flat
from minift.errors import ConfigError, DataError

KINDS = (None, "python", "numpy", "torch", "arrow")


@dataclass(frozen=True)
class Format:
    """How a dataset shows its rows.

    Attributes:
        kind: None or "python", "numpy", "torch", "arrow", or "transform".
        columns: the columns shown, or None for all.
        output_all_columns: show the other columns too, as Python objects.
        options: for torch: `dtype`, `device`.
        transform: for "transform": a function of a batch (a dict of lists).
    """

    kind: str | None = None
    columns: tuple[str, ...] | None = None
    output_all_columns: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "transform"):
            raise ConfigError(f"no format is called {self.kind!r}", expected=KINDS)


def to_lists(table: pa.Table) -> dict[str, list[Any]]:
    """A dict of Python lists."""
    return {name: to_list(table.column(name)) for name in table.column_names}


def to_list(column: pa.ChunkedArray) -> list[Any]:
    if not is_flat(column.type) or column.null_count:
        return column.to_pylist()
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
    """The rows of a table, as the format says; a dict by column except for "arrow"."""
    if form.kind == "transform":
        shown = table.select(form.columns) if form.columns else table
        assert form.transform is not None
        return form.transform(to_lists(shown))
    shown = [n for n in table.column_names if form.columns is None or n in form.columns]
    if form.kind == "arrow":
        return table.select(shown)
    if form.kind in (None, "python"):
        names = table.column_names if form.output_all_columns else shown
        return to_lists(table.select(names))
    convert = to_numpy if form.kind == "numpy" else to_torch
    batch = {name: convert(name, table.column(name), form.options) for name in shown}
    if form.output_all_columns:
        rest = [name for name in table.column_names if name not in shown]
        batch |= to_lists(table.select(rest))
    return batch


def to_numpy(name: str, column: pa.ChunkedArray, options: dict[str, Any]) -> Any:
    """Rows of equal shape as one array, ragged rows as an array of objects; widths are kept."""
    values = to_list(column)
    kind = column.type
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return np.array(values, dtype=object)
    dtype = kind.to_pandas_dtype()
    if column.null_count:
        dtype = np.float64
    try:
        return np.asarray(values, dtype=dtype)
    except ValueError:
        ragged = np.empty(len(values), dtype=object)
        ragged[:] = [np.asarray(value, dtype=dtype) for value in values]
        return ragged


def to_torch(name: str, column: pa.ChunkedArray, options: dict[str, Any]) -> Any:
    """Integers as int64, floats as float32; ragged rows as a list; what is no number as it is."""
    import torch

    if column.null_count and pa.types.is_integer(column.type):
        raise DataError(
            f"the integer column {name!r} has missing values, which a tensor cannot hold",
            do="filter them out, or fill them with map",
        )
    array = to_numpy(name, column, options)
    if array.dtype == object:
        if len(array) and isinstance(array[0], np.ndarray):
            return [torch.as_tensor(narrowed(row), **options) for row in array]
        return array.tolist()
    return torch.as_tensor(narrowed(array), **options)


def narrowed(array: np.ndarray) -> np.ndarray:
    """torch's usual widths, in memory of its own (a view of the file could not be written to)."""
    kinds = {"i": np.int64, "u": np.int64, "f": np.float32, "b": np.bool_}
    return np.array(array, dtype=kinds[array.dtype.kind])
