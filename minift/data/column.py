"""Columns without rows: `Column`, what `ds["text"]` gives, and what a collator reads.

Token columns are lists of integers. In Arrow these are one flat array of values and one of
offsets, so a row is a slice of memory (`FlatColumn`) and the lengths of a million rows are one
subtraction; Python lists never need to exist between the file and the padded batch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from minift.data.indices import Rows
from minift.data.ragged import Ragged
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
        self.name, self.has_missing = name, column.null_count > 0
        self.values: list[np.ndarray] = []
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
        self.starts, self._lengths = np.concatenate(starts), np.concatenate(lengths)
        self.chunk_ends = np.cumsum([len(start) for start in starts[1:]])

    def lengths(self, rows: Rows) -> np.ndarray:
        """How many values some rows have, shape (rows,)."""
        if isinstance(rows, range):
            lengths = self._lengths[rows.start : rows.stop]
        else:
            lengths = self._lengths[rows]
        if self.has_missing and np.any(lengths < 0):
            raise DataError(
                f"the column {self.name!r} has missing rows", do="fill or filter them first"
            )
        return lengths

    def rows(self, rows: np.ndarray) -> Ragged:
        """Some rows, copied from where they are."""
        starts, lengths = self.starts[rows], self.lengths(rows)
        chunks = np.searchsorted(self.chunk_ends, rows, side="right").tolist()
        pieces = zip(chunks, starts.tolist(), (starts + lengths).tolist(), strict=True)
        views = [self.values[chunk][a:b] for chunk, a, b in pieces]
        return Ragged(np.concatenate(views) if views else np.empty(0, np.int64), lengths)


def is_flat(type_: pa.DataType) -> bool:
    """Whether a column of this type can be read as a FlatColumn."""
    if not (pa.types.is_list(type_) or pa.types.is_large_list(type_)):
        return False
    return pa.types.is_integer(type_.value_type) or pa.types.is_floating(type_.value_type)
