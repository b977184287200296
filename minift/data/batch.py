"""Some rows of a dataset on their way to a collator."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minift.data.formatting import rows_of, to_list
from minift.data.indices import as_rows, resolve_key, take
from minift.data.ragged import Ragged, as_ragged, pad_columns
from minift.errors import DataError

if TYPE_CHECKING:
    from minift.data.dataset import Dataset


class RowBatch(Sequence[dict[str, Any]]):
    """Some rows of a dataset, not read yet.

    A collator of ours pads token columns straight from the memory map; any other collator sees
    what it expects, a list of dicts.
    """

    def __init__(self, dataset: "Dataset", indices: np.ndarray) -> None:
        self.dataset, self.indices, rows = dataset, indices, dataset.indices
        wanted = as_rows(resolve_key(indices, len(dataset)))  # type: ignore[arg-type]
        self.table_rows = wanted + rows.start if isinstance(rows, range) else rows[wanted]
        self._read: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Any) -> Any:
        if self._read is None:
            self._read = list(rows_of(self.dataset.read(self.indices), len(self)))
        return self._read[key]

    def pad(
        self,
        pad_values: Mapping[str, float] | None = None,
        side: str = "right",
        pad_to_multiple_of: int | None = None,
        max_length: int | None = None,
    ) -> dict[str, np.ndarray]:
        """The rows as arrays: token columns padded to the longest row, without Python lists.

        Args:
            pad_values: {token column: what it is padded with}, 0 by default.
            side: "right" or "left".
            pad_to_multiple_of: round the length up.
            max_length: the length, instead of the longest row's.

        Returns:
            int64 or float32 arrays, (B, T) for token columns and (B,) for numbers.
        """
        columns = self.columns()
        tokens = {n: as_ragged(n, rows) for n, rows in columns.items() if is_tokens(rows)}
        length = max((int(rows.lengths.max(initial=0)) for rows in tokens.values()), default=0)
        if max_length is not None and length > max_length:
            raise DataError("a row is longer than max_length", got=length, expected=max_length)
        length, step = max_length or length, pad_to_multiple_of or 1
        fills = {**dict.fromkeys(tokens, 0), **(pad_values or {})}
        whole = -(-length // step) * step
        return pad_columns({**columns, **tokens}, fills, whole, left=side == "left")

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
                table = take(dataset.data.select([name]), self.table_rows)
                columns[name] = to_list(table.column(name))
            elif isinstance(view, np.ndarray):
                columns[name] = view[self.table_rows]
            else:
                columns[name] = view.rows(self.table_rows)
        return columns


def is_tokens(rows: Any) -> bool:
    """Whether the rows of a column are lists of numbers."""
    return isinstance(rows, Ragged) or (len(rows) > 0 and getattr(rows[0], "ndim", 0) == 1)
