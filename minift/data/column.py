"""Columns without rows: `Column`, what `ds["text"]` gives, and `FlatColumn`, what a collator reads.

Token columns are lists of integers. In Arrow these are one flat array of values and one of
offsets, so a row is a slice of memory and the lengths of a million rows are one subtraction;
Python lists never need to exist between the file and the padded batch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from minift.errors import DataError

if TYPE_CHECKING:
    from minift.data.dataset import Dataset


class Column(Sequence[Any]):
    """One column of a dataset, read when it is looked at.

    It is a sequence: `len`, indexing, slicing, iteration, `in`, equality with a list. `[:]` or
    `tolist()` gives a list, `numpy.asarray` an array.
    """

    def __init__(self, dataset: "Dataset", name: str) -> None:
        self.dataset, self.name = dataset, name

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        return self.dataset.read(key, [self.name])[self.name]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.dataset.batches_of([self.name]):
            yield from batch[self.name]

    def tolist(self) -> list[Any]:
        return list(self)

    def unique(self) -> list[Any]:
        return self.dataset.unique(self.name)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.tolist(), dtype=dtype)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Column | list | tuple):
            return self.tolist() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        head = ", ".join(map(repr, self[:5]))
        return f"Column([{head}{', ...' if len(self) > 5 else ''}])"


class FlatColumn:
    """A column of integer or float lists as numpy views of the memory map.

    Rows are rows of the table, before any selection; a missing one has no length until somebody
    asks for it, which is an error.
    """

    def __init__(self, name: str, column: pa.ChunkedArray) -> None:
        if not is_flat(column.type):
            raise DataError(f"the column {name!r} holds no lists of numbers", got=column.type)
        self.name = name
        self.values: list[np.ndarray] = []
        starts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for chunk in column.chunks:
            if chunk.values.null_count:
                raise DataError(f"a list in the column {name!r} has a missing value in it")
            offsets = chunk.offsets.to_numpy()
            missing = chunk.is_null().to_numpy(zero_copy_only=False)
            self.values.append(chunk.values.to_numpy(zero_copy_only=True))
            starts.append(offsets[:-1])
            lengths.append(np.where(missing, -1, np.diff(offsets)))
        self.starts, self._lengths = np.concatenate(starts), np.concatenate(lengths)
        self.chunk_ends = np.cumsum([len(start) for start in starts[1:]])

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """How many values some rows have, int64 of shape (rows,)."""
        lengths = self._lengths[indices]
        if np.any(lengths < 0):
            raise DataError(
                f"the column {self.name!r} has missing rows", do="fill or filter them first"
            )
        return lengths

    def rows(self, indices: np.ndarray) -> list[np.ndarray]:
        """Views of the values of some rows."""
        chunks = np.searchsorted(self.chunk_ends, indices, side="right").tolist()
        starts, lengths = self.starts[indices].tolist(), self.lengths(indices).tolist()
        return [
            self.values[chunk][start : start + length]
            for chunk, start, length in zip(chunks, starts, lengths, strict=True)
        ]


def is_flat(type_: pa.DataType) -> bool:
    """Whether a column of this type can be read as a FlatColumn."""
    if not (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
        return False
    return pa.types.is_integer(type_.value_type) or pa.types.is_floating(type_.value_type)


def pad_rows(
    rows: Sequence[Any], length: int, pad_value: float, dtype: Any = np.int64, left: bool = False
) -> np.ndarray:
    """Rows of unequal length as one block; the one place where padding happens.

    Args:
        rows: B sequences of numbers.
        length: T, at least the longest row.
        pad_value: what fills the rest.
        left: fill on the left.

    Returns:
        An array of shape (B, T) in memory of its own.
    """
    block = np.full((len(rows), length), pad_value, dtype=dtype)
    for target, row in zip(block, rows, strict=True):
        if left:
            target[length - len(row) :] = row
        else:
            target[: len(row)] = row
    return block
