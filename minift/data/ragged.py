"""Rows of token columns: one behind the other in flat arrays, padded to blocks of one length.

Token columns are lists of numbers. In Arrow these are one flat array of values and one of offsets,
so a row is a slice of memory and the lengths of a million rows are one subtraction; Python lists
never need to exist between the file and the padded batch.

    FlatColumn    a whole column, as views of the memory map
    Ragged        some rows of it, copied behind each other
    Runs          rows that are zeros and then ones, by two numbers a row

A mask of ones, and the type ids of a pair (zeros, then ones), are such runs. As a column of the
type RUNS they take four bytes a row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from minift.data.indices import Indices
from minift.errors import DataError

# The types of a column of runs: as lists, and stored as two numbers a row, its zeros and its ones.
BYTES = pa.list_(pa.int8())
RUNS = pa.struct([("minift.zeros", pa.uint16()), ("minift.ones", pa.uint16())])


class Ragged(Sequence[list[Any]]):
    """B rows of numbers, of unequal length, one behind the other in one array.

    Args:
        values: of all rows.
        lengths: of the rows, int32 of shape (B,).
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values, self.lengths = values, lengths

    @classmethod
    def from_rows(cls, name: str, rows: Any) -> "Ragged":
        """Copy lists or arrays; `name` is the column's, for messages."""
        try:
            lengths = np.fromiter(map(len, rows), np.int32, len(rows))
            not_empty = [row for row in rows if len(row)]  # numpy takes [] for floats
            values = np.concatenate(not_empty) if not_empty else np.empty(0, np.int64)
            if values.dtype.kind not in "iufb" or values.ndim != 1:
                raise TypeError
            return cls(values, lengths)
        except (TypeError, ValueError):
            odd = next((r for r in rows if np.asarray(r, object).ndim != 1), next(iter(rows), None))
            what = f"the column {name!r} holds something else than lists of numbers"
            do = "if a map made lists of lists of it, leave return_tensors out there"
            raise DataError(what, got=f"{odd!r:.60}", do=do) from None

    def to_arrow(self) -> pa.ListArray:
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, self.values)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self[:])

    def __getitem__(self, key: Any) -> Any:
        return split_rows(self.values, np.cumsum(self.lengths))[key]


class Runs(Ragged):
    """B rows that are zeros and then ones, like an attention mask or the type ids of a pair.

    Args:
        lengths: of the rows, int32 of shape (B,).
        zeros: how many zeros each row begins with, int32 of shape (B,).
    """

    def __init__(self, lengths: np.ndarray, zeros: np.ndarray) -> None:
        self.lengths, self.zeros = lengths, zeros

    @classmethod
    def ones(cls, lengths: Sequence[int] | np.ndarray) -> "Runs":
        """Make the mask of rows without padding."""
        return cls(np.asarray(lengths, np.int32), np.zeros(len(lengths), np.int32))

    @classmethod
    def found_in(cls, rows: Any) -> "Runs | None":
        """Return the rows of an Arrow array as runs, or None if they are something else."""
        lists = isinstance(rows, pa.ListArray) and rows.type == BYTES
        if not lists or rows.null_count or rows.values.null_count:
            return None
        values, lengths = rows.flatten().to_numpy(), np.diff(rows.offsets.to_numpy())
        sums, ends = np.concatenate([[0], np.cumsum(values, dtype=np.int64)]), np.cumsum(lengths)
        runs = cls(lengths, lengths - (sums[ends] - sums[ends - lengths]))
        fits = np.all((runs.zeros >= 0) & (runs.zeros <= lengths) & (lengths < 2**16))
        return runs if fits and np.array_equal(runs.values, values) else None

    @classmethod
    def decode(cls, column: pa.ChunkedArray) -> "Runs":
        """Return the runs in a column of the type RUNS."""
        zeros, ones = (np.asarray(part, np.int32) for part in column.combine_chunks().flatten())
        return cls(zeros + ones, zeros)

    def encode(self) -> pa.StructArray:
        """Return a column of the type RUNS."""
        numbers = (pa.array(n, pa.uint16()) for n in (self.zeros, self.lengths - self.zeros))
        return pa.StructArray.from_arrays(list(numbers), fields=list(RUNS))

    @property
    def values(self) -> np.ndarray:  # type: ignore[override]
        """All rows, one behind the other, int8."""
        starts = np.cumsum(self.lengths) - self.lengths
        position = np.arange(self.lengths.sum()) - np.repeat(starts, self.lengths)
        return (position >= np.repeat(self.zeros, self.lengths)).astype(np.int8)

    def take(self, indices: Indices) -> "Runs":
        """Return some of the rows."""
        key = slice(indices.start, indices.stop) if isinstance(indices, range) else indices
        return Runs(self.lengths[key], self.zeros[key])


class FlatColumn:
    """A column of integer or float lists as numpy views of the memory map.

    A missing row has no length until somebody asks for it, which is an error.
    """

    def __init__(self, name: str, column: pa.ChunkedArray) -> None:
        if not is_flat(column.type):
            raise DataError(f"the column {name!r} holds no lists of numbers", got=column.type)
        self.name, self.has_missing = name, column.null_count > 0
        self.values: list[np.ndarray] = []  # of each chunk
        starts, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for chunk in column.chunks:
            if chunk.values.null_count:
                raise DataError(f"a list in the column {name!r} has a missing value in it")
            offsets = chunk.offsets.to_numpy()
            self.values.append(chunk.values.to_numpy(zero_copy_only=True))
            starts.append(offsets[:-1])
            lengths.append(np.diff(offsets))
            if chunk.null_count:
                lengths[-1][chunk.is_null().to_numpy(zero_copy_only=False)] = -1
        self.starts, self.row_lengths = np.concatenate(starts), np.concatenate(lengths)
        self.chunk_ends = np.cumsum([len(start) for start in starts[1:]])

    def lengths(self, indices: Indices) -> np.ndarray:
        """Return how many values some rows have, shape (len(indices),)."""
        key = slice(indices.start, indices.stop) if isinstance(indices, range) else indices
        lengths = self.row_lengths[key]
        if self.has_missing and np.any(lengths < 0):
            raise DataError(f"the column {self.name!r} has missing rows: fill or filter them first")
        return lengths

    def take(self, indices: np.ndarray) -> Ragged:
        """Return some rows, copied from where they are."""
        starts, lengths = self.starts[indices], self.lengths(indices)
        chunks = np.searchsorted(self.chunk_ends, indices, side="right").tolist()
        pieces = zip(chunks, starts.tolist(), (starts + lengths).tolist(), strict=True)
        views = [self.values[chunk][a:b] for chunk, a, b in pieces]
        return Ragged(np.concatenate(views) if views else np.empty(0, np.int64), lengths)


def is_flat(type_: pa.DataType) -> bool:
    """Return True if a column of this type can be read as a FlatColumn."""
    lists = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    return lists and is_number(type_.value_type)


def is_number(type_: pa.DataType) -> bool:
    """Return True for integers and floats of any width."""
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def decode_runs(rows: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return the table with lists in the place of those of its columns that hold runs."""
    for name in names:
        if (column := rows.column(name)).type == RUNS:
            lists = Runs.decode(column).to_arrow()
            rows = rows.set_column(rows.column_names.index(name), name, lists)
    return rows


def split_rows(values: np.ndarray, ends: np.ndarray) -> list[list[Any]]:
    """Return rows as Python lists, slices of one list: several times faster than row by row."""
    flat, stops = values.tolist(), ends.tolist()
    return [flat[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def as_ragged(name: str, rows: Any) -> Ragged:
    """Return the rows of a token column, in whatever form they come."""
    return rows if isinstance(rows, Ragged) else Ragged.from_rows(name, rows)


def pad_columns(
    columns: Mapping[str, Any], pad_values: Mapping[str, float], length: int, left: bool = False
) -> dict[str, np.ndarray]:
    """Return token columns as blocks (B, T), the others as arrays (B, ...).

    Args:
        columns: {name: B sequences of numbers, or B numbers}.
        pad_values: {name of a token column: what its rows are padded with}.
        length: T, at least the longest row.
        left: pad on the left.

    Returns:
        int64 or float32 arrays in memory of their own.

    Raises:
        DataError: a column holds text, which no tensor can, or token columns do not fit each
            other; names it.
    """
    rows = {n: as_ragged(n, values) for n, values in columns.items() if n in pad_values}
    first = next(iter(rows), "")
    lengths = rows[first].lengths if rows else np.empty(0)
    if length < lengths.max(initial=0):
        raise DataError(f"{length} places are too few for the rows of {first!r}")
    # The position of each place in its row: (T,), or (B, T) where rows end together.
    position: Any = np.arange(length, dtype=np.int32)
    position = position - (length - lengths[:, None]) if left else position
    mask = position >= 0 if left else position < lengths[:, None]  # (B, T)
    blocks = {}
    for name, values in columns.items():
        if name not in rows:
            blocks[name] = to_block(name, values)
        elif not np.array_equal(rows[name].lengths, lengths):
            # A short mask would hide tokens silently.
            raise DataError(f"the rows of {name!r} are not as long as those of {first!r}")
        else:
            blocks[name] = pad_rows(rows[name], position, mask, pad_values[name])
    return blocks


def pad_rows(rows: Ragged, position: np.ndarray, mask: np.ndarray, pad_value: float) -> np.ndarray:
    """Return the rows' values where the mask (B, T) is set, and `pad_value` elsewhere."""
    if isinstance(rows, Runs) and not pad_value:
        return (mask & (position >= rows.zeros[:, None])).astype(np.int64)
    dtype = np.float32 if rows.values.dtype.kind == "f" else np.int64
    block = np.full(mask.shape, pad_value, dtype)
    block[mask] = rows.values
    return block


def to_block(name: str, values: Any) -> np.ndarray:
    """Return numbers as int64 or float32, or raise an error that names the column."""
    array = values
    if not isinstance(values, np.ndarray):
        try:
            array = np.asarray([v.tolist() if hasattr(v, "tolist") else v for v in values])
        except ValueError:
            array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iufb":
        what = f"the column {name!r} cannot be made into a tensor: no numbers, or unequal lists"
        do = f"remove it: dataset.remove_columns({name!r})"
        raise DataError(what, got=f"{next(iter(values), None)!r:.60}", do=do)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
