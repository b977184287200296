"""`Table`: rows with named, typed columns, read from Arrow data that never changes.

A table is a plain record. Its rows are `data[indices]`, so selecting, shuffling and sorting only
make new indices, and dropping or renaming columns only makes new views of the same memory. The
functions that do this are in selecting.py, columns.py, combining.py and splitting.py. Most take a
table and return `table.replace(...)`, which has the same class: a `Dataset` stays a `Dataset`,
although this file knows neither that class nor the method names that users call.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa

from minift.data.features import ClassLabel, Features, check_names
from minift.data.fingerprint.values import column_digest, fingerprint
from minift.data.formatting import Format, format_batch, rows_of
from minift.data.indices import Indices, compose, resolve_key, split_range, take_rows
from minift.data.ragged import RUNS, FlatColumn, Runs, decode_runs, is_flat, is_number
from minift.data.storage import by_file
from minift.errors import ColumnError, nearest

READ_ROWS = 1000  # rows read at once by plain iteration
# The attributes that Table is constructed from, in the order of its arguments.
FIELDS = ("data", "features", "indices", "digests", "row_format", "origin")


class Table:
    """Rows with named, typed columns.

    Attributes:
        data: the Arrow data; never changed. Columns of lists may be stored as `RUNS`.
        features: the type of each column, by default from the schema of `data`.
        indices: the numbers of the table's rows in `data`, in the order of the table: a range if
            they are adjacent, else an int64 array. By default all rows.
        digests: {column: digest of its content in `data`}; `fingerprint` adds those that are
            missing.
        row_format: how `read` returns rows.
        origin: where the rows come from, for run.json.
    """

    def __init__(
        self, data: pa.Table, features: Features | None = None, indices: Indices | None = None,
        digests: dict[str, str] | None = None, row_format: Format | None = None,
        origin: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        features = features or Features.from_arrow_schema(data.schema)
        check_names(features, data.column_names)
        data = data.select(list(features))
        for i, (name, feature) in enumerate(features.items()):
            if isinstance(feature, ClassLabel):  # of any width in a file, of one here
                data = data.set_column(i, name, data.column(name).cast(pa.int64()))
        self.data = data.replace_schema_metadata(features.arrow_schema.metadata)
        self.features = features
        self.indices = range(data.num_rows) if indices is None else indices
        self.digests = {} if digests is None else digests  # shared by tables of the same data
        self.row_format = row_format or Format()
        self.origin = origin or {}
        self.numpy_columns: dict[str, Any] = {}  # by column; filled by `numpy_column`

    def replace(self, **changes: Any) -> Self:
        """Return a table of the same class that differs in the given fields.

        Digests describe the data, so with new data they are dropped unless new ones are given too.
        """
        fields = {name: getattr(self, name) for name in FIELDS}
        if "data" in changes:
            fields["digests"] = None
        table = type(self)(**{**fields, **changes})
        if "data" not in changes:
            table.numpy_columns = self.numpy_columns
        return table

    def __reduce__(self) -> Any:
        """Return what pickle stores: for data in mapped files, the files' names and no bytes."""
        fields = {name: getattr(self, name) for name in FIELDS}
        fields["data"] = by_file(self.data)
        return type(self), tuple(fields.values())

    def __copy__(self) -> Self:
        return self.replace()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def column_names(self) -> list[str]:
        return list(self.features)

    def check_columns(self, names: str | Iterable[str] | None) -> list[str]:
        """Return the names as a list, or raise a ColumnError that suggests the nearest name."""
        names = [names] if isinstance(names, str) else list(names or ())
        for name in names:
            if name not in self.features:
                what, got = f"the column {name!r} is not in the dataset", ", ".join(self.features)
                raise ColumnError(what, got=f"columns {got}", expected=nearest(name, self.features))
        return names

    @property
    def fingerprint(self) -> str:
        """A digest of rows, columns and features.

        Tables with different content have different digests. The same content may have several: a
        selection of rows has another one than a copy of these rows.
        """
        for name in self.features:
            if name not in self.digests:
                column = self.replace(indices=None).arrow_column(name)
                self.digests[name] = column_digest(column).hex()
        columns = [(name, self.digests[name]) for name in self.features]
        features = json.dumps(self.features.to_dict())
        indices = self.indices if isinstance(self.indices, np.ndarray) else str(self.indices)
        return fingerprint("dataset", columns, features, indices)

    def __fingerprint__(self) -> str:
        """Return the digest of a table that a mapped function reads, so that its format counts."""
        return fingerprint(self.fingerprint, self.row_format)

    # -- reading ----------------------------------------------------------------------------------

    def read(self, key: Any, columns: Sequence[str] | None = None) -> Any:
        """Return the row or rows that a key names, in the table's format.

        Args:
            key: an integer, a slice, a range, or a sequence of integers; negative ones count
                from the end.
            columns: read only these, even if the format hides them.
        """
        index = resolve_key(key, len(self))
        rows = range(index, index + 1) if isinstance(index, int) else index
        row_format = self.row_format
        if row_format.type == "transform":  # the function may need any column
            columns = None
        elif columns is not None:
            row_format = replace(row_format, output_all_columns=True)
        batch = format_batch(self.to_arrow(rows, columns), row_format)
        return next(rows_of(batch, 1)) if isinstance(index, int) else batch

    def read_batches(
        self, columns: Sequence[str] | None = None, size: int = READ_ROWS
    ) -> Iterator[Any]:
        """Read all rows in order, `size` at a time, as `read` does."""
        for indices in split_range(range(len(self)), size):
            yield self.read(indices, columns)

    def to_arrow(
        self, indices: Indices | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return rows as an Arrow table, without copying where they are adjacent in the data.

        Args:
            indices: which rows of this table; all by default.
            columns: which columns; all by default.
        """
        data = self.data if columns is None else self.data.select(list(columns))
        picked = self.indices if indices is None else compose(self.indices, indices)
        return decode_runs(take_rows(data, picked), data.column_names)

    def arrow_column(self, name: str, indices: Indices | None = None) -> pa.ChunkedArray:
        """Return one column as Arrow data: some of its rows, or all by default."""
        self.check_columns([name])
        return self.to_arrow(indices, [name]).column(name)

    def numpy_column(self, name: str) -> Any:
        """Return all rows of a column of `data` in numpy arrays.

        Returns:
            A `FlatColumn` for lists of numbers, `Runs` for those that are runs, a numpy array for
            numbers, or None for any other column and for numbers of which some are missing.
        """
        if name not in self.numpy_columns:
            self.check_columns([name])
            column, views = self.data.column(name), self.numpy_columns
            if column.type == RUNS:
                views[name] = Runs.decode(column)
            elif is_flat(column.type):
                views[name] = FlatColumn(name, column)
            else:
                numbers = is_number(column.type) and not column.null_count
                views[name] = column.to_numpy() if numbers else None
        return self.numpy_columns[name]

    def lengths(self, name: str) -> np.ndarray:
        """Return the number of values in each row of a list column, shape (len(self),)."""
        view = self.numpy_column(name)
        if isinstance(view, Runs):
            lengths = view.take(self.indices).lengths
        else:
            if not isinstance(view, FlatColumn):
                view = FlatColumn(name, self.data.column(name))  # raises an error that says why not
            lengths = view.lengths(self.indices)
        lengths.setflags(write=False)  # it may share memory with the column
        return lengths


AnyTable = TypeVar("AnyTable", bound=Table)
