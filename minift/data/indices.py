"""Row numbers: from anything that indexes, and from one choice of rows to the next.

A dataset's rows are a range while they are adjacent in its table, so that reading them is a slice,
and else an array of int64. There is one form for each choice, so that equal choices are equal.
"""

import operator
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

Indices: TypeAlias = range | np.ndarray


def resolve_key(key: Any, n: int) -> int | Indices:
    """Row numbers 0 <= i < n from anything that indexes a list or an array.

    Raises:
        IndexError: out of bounds. TypeError: not a kind of index (a bool or float is not).
    """
    if isinstance(key, slice):
        return range(*key.indices(n))
    if isinstance(key, bool | np.bool_) or key is None:
        raise TypeError(f"wrong key {key!r} of type {type(key).__name__} for a dataset of {n} rows")
    if isinstance(key, range) and key.step == 1 and 0 <= key.start <= key.stop <= n:
        return key
    if not isinstance(key, Iterable) or getattr(key, "ndim", 1) == 0:
        try:
            index = operator.index(key)
        except TypeError:
            raise TypeError(f"wrong key {key!r} of type {type(key).__name__}") from None
        if not -n <= index < n:
            raise IndexError(f"Invalid key: {index} is out of bounds for size {n}")
        return index % n
    indices = np.asarray(key if hasattr(key, "__array__") else list(key))
    if indices.size == 0:
        return range(0)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"row numbers must be integers, not {indices.dtype}")
    if indices.min() >= 0 and indices.max() < n:
        return indices.astype(np.int64, copy=False)
    bad = indices[(indices < -n) | (indices >= n)]
    if bad.size:
        raise IndexError(f"Index {bad[0]} out of range for dataset of size {n}.")
    return np.where(indices < 0, indices + n, indices).astype(np.int64)


def compose(rows: Indices, wanted: int | Indices) -> Indices:
    """`rows[wanted]`; adjacent rows become a range, so that they can be sliced."""
    if isinstance(wanted, int):
        wanted = range(wanted, wanted + 1)
    if isinstance(wanted, range) and wanted.step == 1:
        picked = rows[wanted.start : wanted.stop]
    elif isinstance(rows, range):
        picked = rows.start + to_array(wanted)
    else:
        picked = rows[to_array(wanted)]
    if len(picked) == 0:
        return range(0)
    if isinstance(picked, np.ndarray) and picked[-1] - picked[0] == len(picked) - 1:
        adjacent = np.all(np.diff(picked) == 1)
        return range(int(picked[0]), int(picked[-1]) + 1) if adjacent else picked
    return picked


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Indices of a table in any order.

    By batches: pyarrow would join all chunks of a column first, however few rows are wanted.
    """
    batches = table.to_batches()
    starts = np.cumsum([0, *map(len, batches)])
    batch_of = np.searchsorted(starts, rows, side="right") - 1
    met = np.unique(batch_of).tolist()
    parts = [batches[k].take(pa.array(rows[batch_of == k] - starts[k])) for k in met]
    found = pa.Table.from_batches(parts, table.schema)
    back = np.argsort(np.argsort(batch_of, kind="stable"))
    return found.take(pa.array(back)) if len(parts) > 1 else found


def to_array(rows: Indices) -> np.ndarray:
    """Row numbers as an array; numpy would walk a range in Python."""
    if isinstance(rows, range):
        return np.arange(rows.start, rows.stop, rows.step)
    return rows
