"""`Column`: what `ds["text"]` gives, a column that is read when somebody looks at it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from minift.data.table import Table


class Column(Sequence[Any]):
    """One column of a table as a sequence of values.

    `len`, indexing, slicing, iteration, `in` and equality with a list work. `[:]` or `tolist()`
    gives a list, `numpy.asarray` an array.
    """

    def __init__(self, table: Table, name: str) -> None:
        table.check_columns([name])
        self.table, self.name = table, name

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: Any) -> Any:
        return self.table.read(key, [self.name])[self.name]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.table.read_batches([self.name]):
            yield from batch[self.name]

    def tolist(self) -> list[Any]:
        return list(self)

    def unique(self) -> list[Any]:
        """Return the different values, in order of first appearance."""
        values = self.table.to_arrow(columns=[self.name]).column(self.name)
        return pc.unique(values).to_pylist()

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
