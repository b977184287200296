"""Row indices: from anything that indexes, and from one choice of rows to the next.

The indices of a table are a range while its rows are adjacent in the data, so that reading them is
a slice, and else an array of int64. There is one form for each choice, so that equal choices are
equal.
"""

import operator
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

Indices: TypeAlias = range | np.ndarray


def resolve_key(key: Any, n: int) -> int | Indices:
    """Return indices 0 <= i < n from anything that indexes a list or an array.

    Raises:
        IndexError: out of bounds. TypeError: not an index (a bool or float is not).
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
    outside = indices[(indices < -n) | (indices >= n)]
    if outside.size:
        raise IndexError(f"Index {outside[0]} out of range for dataset of size {n}.")
    return np.where(indices < 0, indices + n, indices).astype(np.int64)


def compose(indices: Indices, chosen: int | Indices) -> Indices:
    """Return `indices[chosen]`; adjacent rows become a range, so that they can be sliced."""
    if isinstance(chosen, int):
        chosen = range(chosen, chosen + 1)
    if isinstance(chosen, range) and chosen.step == 1:
        composed = indices[chosen.start : chosen.stop]
    elif isinstance(indices, range):
        composed = indices.start + to_array(chosen)
    else:
        composed = indices[to_array(chosen)]
    if len(composed) == 0:
        return range(0)
    if isinstance(composed, np.ndarray) and composed[-1] - composed[0] == len(composed) - 1:
        adjacent = np.all(np.diff(composed) == 1)
        return range(int(composed[0]), int(composed[-1]) + 1) if adjacent else composed
    return composed


def to_array(indices: Indices) -> np.ndarray:
    """Return indices as an array; numpy would walk a range in Python."""
    if isinstance(indices, range):
        return np.arange(indices.start, indices.stop, indices.step)
    return indices


def split_range(indices: range, size: int) -> Iterator[range]:
    """Cut a range into ranges of `size`, the last one shorter where they do not fit."""
    for start in range(indices.start, indices.stop, size):
        yield range(start, min(start + size, indices.stop))


def take_rows(data: pa.Table, indices: Indices) -> pa.Table:
    """Return rows of Arrow data: a slice of adjacent ones, copies of others.

    These by batches: pyarrow would join all chunks of a column first, however few rows it takes.
    """
    if isinstance(indices, range):
        return data.slice(indices.start, len(indices))
    batches = data.to_batches()
    starts = np.cumsum([0, *map(len, batches)])
    batch_of = np.searchsorted(starts, indices, side="right") - 1
    used = np.unique(batch_of).tolist()
    parts = [batches[k].take(pa.array(indices[batch_of == k] - starts[k])) for k in used]
    by_batch = pa.Table.from_batches(parts, data.schema)
    if len(parts) < 2:
        return by_batch
    position = np.argsort(np.argsort(batch_of, kind="stable"))  # of each index in `by_batch`
    return by_batch.take(pa.array(position))
