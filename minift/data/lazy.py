"""Parts of a table that are read when somebody looks: `Column`, and `RowBatch` for a collator."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minift.data.formatting import rows_of, to_list
from minift.data.indices import compose, resolve_key, take_rows, to_array
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


class RowBatch(Sequence[dict[str, Any]]):
    """Some rows of a table, not read yet.

    minift's collator reads `columns()` and pads token columns straight from the memory map; any
    other collator sees what it expects, a list of dicts.
    """

    def __init__(self, table: Table, indices: np.ndarray) -> None:
        self.table, self.indices = table, indices
        self.data_indices = to_array(compose(table.indices, resolve_key(indices, len(table))))
        self.read_rows: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> Any:
        if self.read_rows is None:
            self.read_rows = list(rows_of(self.table.read(self.indices), len(self)))
        return self.read_rows[key]

    def columns(self) -> dict[str, Any]:
        """Return the shown columns: token lists as copies from the memory map, others as values."""
        table, row_format = self.table, self.table.row_format
        if row_format.type == "transform":  # only a call shows which columns it returns
            return {name: [row[name] for row in self] for name in self[0]}
        shown = table.column_names if row_format.output_all_columns else row_format.columns
        columns: dict[str, Any] = {}
        for name in table.column_names if shown is None else shown:
            column = table.numpy_column(name)
            if column is None:
                rows = take_rows(table.data.select([name]), self.data_indices)
                columns[name] = to_list(rows.column(name))
            else:
                columns[name] = column.take(self.data_indices)
        return columns
