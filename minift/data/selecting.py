"""Choosing rows and their order: each function returns a table with other indices into its data."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from minift.data.indices import compose, resolve_key
from minift.data.table import AnyTable
from minift.errors import ConfigError, DataError
from minift.rng import random_generator


def select(table: AnyTable, indices: Iterable[int]) -> AnyTable:
    """Return these rows in this order; adjacent ones stay a slice."""
    return table.replace(indices=compose(table.indices, resolve_key(indices, len(table))))


def shuffle(
    table: AnyTable, seed: int | None = None, generator: np.random.Generator | None = None
) -> AnyTable:
    """Return the rows in random order: `numpy.random.default_rng(seed).permutation(n)`."""
    return select(table, random_generator(seed, generator).permutation(len(table)))


def take(table: AnyTable, n: int) -> AnyTable:
    """Return the first n rows, or all if there are fewer."""
    if n < 0:
        raise ConfigError("a number of rows is not negative", got=n)
    return select(table, range(min(n, len(table))))


def skip(table: AnyTable, n: int) -> AnyTable:
    """Return the rows after the first n."""
    return select(table, range(len(take(table, n)), len(table)))


def shard(table: AnyTable, num_shards: int, index: int, contiguous: bool = True) -> AnyTable:
    """Return one of `num_shards` parts: adjacent rows, or every `num_shards`-th row."""
    if not 0 <= index < num_shards:
        raise ConfigError("index must be in [0, num_shards-1]", got=f"{index} of {num_shards}")
    if not contiguous:
        return select(table, range(index, len(table), num_shards))
    size, remainder = divmod(len(table), num_shards)  # the first `remainder` shards get one more
    start = index * size + min(index, remainder)
    return select(table, range(start, start + size + (index < remainder)))


def select_where(table: AnyTable, mask: Any) -> AnyTable:
    """Return the rows that a boolean array of shape (len(table),) marks."""
    mask = np.asarray(mask)
    if (mask.size and mask.dtype != bool) or mask.shape != (len(table),):
        got, expected = f"{mask.dtype} of shape {mask.shape}", f"bool of shape ({len(table)},)"
        raise DataError("the mask does not fit", got=got, expected=expected)
    return select(table, np.flatnonzero(mask))


def sort(
    table: AnyTable, column_names: str | Sequence[str], reverse: bool | Sequence[bool] = False,
    null_placement: str = "at_end",
) -> AnyTable:  # fmt: skip
    """Return the rows in the order of the columns' values; equal rows keep their order.

    Args:
        table: the input.
        column_names: the columns to sort by, the most important first.
        reverse: descend instead; one for all columns, or one for each.
        null_placement: put missing values "at_end" or "at_start".
    """
    names = table.check_columns(column_names)
    down = [reverse] * len(names) if isinstance(reverse, bool) else list(reverse)
    if len(down) != len(names):
        raise ConfigError("sort needs one reverse= for each column", got=down, expected=names)
    keys = [(n, "descending" if d else "ascending") for n, d in zip(names, down, strict=True)]
    # From 25.0 on, pyarrow warns when it is given, but some versions know no other way.
    placed = {} if null_placement == "at_end" else {"null_placement": null_placement}
    order = pc.sort_indices(table.to_arrow(columns=names), sort_keys=keys, **placed)
    return select(table, order.to_numpy())
