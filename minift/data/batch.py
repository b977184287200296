"""Some rows of a dataset on their way to a collator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minift.data.formatting import rows_of, to_list
from minift.data.indices import resolve_key, take_rows, to_array

if TYPE_CHECKING:
    from minift.data.dataset import Dataset


class RowBatch(Sequence[dict[str, Any]]):
    """Some rows of a dataset, not read yet.

    A collator of ours pads token columns straight from the memory map; any other collator sees
    what it expects, a list of dicts.
    """

    def __init__(self, dataset: "Dataset", indices: np.ndarray) -> None:
        self.dataset, self.indices, rows = dataset, indices, dataset.indices
        wanted = to_array(resolve_key(indices, len(dataset)))  # type: ignore[arg-type]
        self.table_rows = wanted + rows.start if isinstance(rows, range) else rows[wanted]
        self._read: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> Any:
        if self._read is None:
            self._read = list(rows_of(self.dataset.read(self.indices), len(self)))
        return self._read[key]

    def columns(self) -> dict[str, Any]:
        """The columns that are shown: token lists as views of the memory map, others as values."""
        dataset, form = self.dataset, self.dataset.row_format
        if form.kind == "transform":  # what a transform returns is known by calling it
            return {name: [row[name] for row in self] for name in self[0]}
        shown = dataset.column_names if form.output_all_columns else form.columns
        columns: dict[str, Any] = {}
        for name in dataset.column_names if shown is None else shown:
            view = dataset.view(name)
            if view is None:
                table = take_rows(dataset.data.select([name]), self.table_rows)
                columns[name] = to_list(table.column(name))
            elif isinstance(view, np.ndarray):
                columns[name] = view[self.table_rows]
            else:
                columns[name] = view.take(self.table_rows)
        return columns
