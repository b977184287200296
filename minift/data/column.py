"""Columns without rows: `Column`, what `ds["text"]` gives, and what a collator reads.

Token columns are lists of integers. In Arrow these are one flat array of values and one of
offsets, so a row is a slice of memory (`FlatColumn`) and the lengths of a million rows are one
subtraction; Python lists never need to exist between the file and the padded batch.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
        for batch in self.dataset.read_batches([self.name]):
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
