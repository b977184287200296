"""Rows of tokens to blocks of one length: the one place where padding happens.

A mask of ones, and the type ids of a pair (zeros, then ones), say one number a row. `Runs` are such
rows, and they are stored as that number: how many zeros a row begins with, null for none and -1
for nothing but zeros, so that the usual mask takes no space and the usual type ids one byte a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.errors import DataError


class Runs(Sequence[list[int]]):
    """B rows that are zeros and then ones, like an attention mask or the type ids of a pair.

    Args:
        lengths: of the rows, int64 of shape (B,).
        zeros: how many zeros each row begins with, int64 of shape (B,).
    """

    def __init__(self, lengths: np.ndarray, zeros: np.ndarray) -> None:
        self.lengths, self.zeros = lengths, zeros

    @classmethod
    def ones(cls, lengths: Sequence[int] | np.ndarray) -> "Runs":
        """The mask of rows without padding."""
        return cls(np.asarray(lengths, np.int64), np.zeros(len(lengths), np.int64))

    @classmethod
    def found_in(cls, rows: pa.ListArray) -> "Runs | None":
        """The same rows as runs, if that is what they are."""
        if rows.null_count or rows.values.null_count:
            return None
        lengths = np.diff(rows.offsets.to_numpy())
        sums = np.concatenate([[0], np.cumsum(rows.flatten().to_numpy(), dtype=np.int64)])
        ends = np.cumsum(lengths)
        runs = cls(lengths, lengths - (sums[ends] - sums[ends - lengths]))
        same = np.all((runs.zeros >= 0) & (runs.zeros <= lengths))
        return runs if same and runs.to_arrow().flatten().equals(rows.flatten()) else None

    @classmethod
    def unpack(cls, packed: Any, lengths: np.ndarray) -> "Runs":
        """From the stored number of each row and the rows' lengths."""
        zeros = np.asarray(pc.fill_null(packed.cast(pa.int64()), 0))
        return cls(lengths, np.where(zeros < 0, lengths, zeros))

    def pack(self) -> pa.Array:
        """One number a row, in as few bytes as it needs."""
        said = np.where(self.zeros == self.lengths, -1, self.zeros)
        if not self.zeros.any():
            return pa.nulls(len(self))
        return pa.array(said.astype(np.min_scalar_type(-max(int(said.max()) + 1, 1))))

    def to_arrow(self) -> pa.ListArray:
        """As lists of int8, what the column is to everybody else."""
        ends = np.cumsum(self.lengths)
        place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(
            ends - self.lengths, self.lengths
        )
        values = (place >= np.repeat(self.zeros, self.lengths)).astype(np.int8)
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, values)

    def rows(self, rows: range | np.ndarray) -> "Runs":
        """Some of the rows."""
        picked = slice(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows
        return Runs(self.lengths[picked], self.zeros[picked])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self[i] for i in range(*key.indices(len(self)))]
        zeros = int(self.zeros[key])
        return [0] * zeros + [1] * (int(self.lengths[key]) - zeros)


def pad_columns(
    columns: Mapping[str, Any], fills: Mapping[str, float], length: int, left: bool = False
) -> dict[str, np.ndarray]:
    """Token columns as blocks (B, T), the others as arrays (B, ...).

    Args:
        columns: {name: B sequences of numbers, or B numbers}.
        fills: {name of a token column: what its rows are filled with}.
        length: T, at least the longest row.
        left: fill on the left.

    Returns:
        int64 or float32 arrays in memory of their own.

    Raises:
        DataError: a column holds text, which no tensor can, or token columns do not fit each
            other; names it.
    """
    block: dict[str, np.ndarray] = {}
    first = ""
    lengths: Any
    place: Any
    inside: Any
    for name, values in columns.items():
        if name not in fills:
            block[name] = stack(name, values)
            continue
        if not first:
            first, lengths = name, row_lengths(name, values)
            place = np.arange(length) - (length - lengths[:, None] if left else 0)  # (B, T)
            inside = (place >= 0) & (place < lengths[:, None])
        elif not np.array_equal(row_lengths(name, values), lengths):
            # A short mask would hide tokens silently.
            raise DataError(f"the rows of {name!r} are not as long as those of {first!r}")
        if isinstance(values, Runs):
            ones = place >= values.zeros[:, None]
            block[name] = np.where(inside, ones, np.int64(fills[name]))
        else:
            block[name] = fill(name, values, inside, fills[name])
    return block


def fill(name: str, rows: Sequence[Any], inside: np.ndarray, pad_value: float) -> np.ndarray:
    """The rows' values at the places that are theirs, (B, T), and `pad_value` elsewhere."""
    filled = [row for row in rows if len(row)]  # numpy takes [] for floats
    try:
        values = np.concatenate(filled) if filled else np.empty(0, np.int64)
        block = np.full(
            inside.shape, pad_value, np.float32 if values.dtype.kind == "f" else np.int64
        )
        block[inside] = values
    except ValueError:
        raise DataError(
            f"the column {name!r} holds something else than lists of numbers",
            got=f"{filled[0]!r:.60}",
        ) from None
    return block


def row_lengths(name: str, rows: Any) -> np.ndarray:
    """How many values each row has, int64 of shape (B,)."""
    if isinstance(rows, Runs):
        return rows.lengths
    try:
        return np.fromiter(map(len, rows), np.int64, len(rows))
    except TypeError:
        raise DataError(
            f"the column {name!r} holds something else than lists of numbers",
            got=f"{next((row for row in rows if not hasattr(row, '__len__')), None)!r:.60}",
        ) from None


def stack(name: str, values: Any) -> np.ndarray:
    """Numbers as int64 or float32, or an error that names the column."""
    array = values
    if not isinstance(values, np.ndarray):
        try:
            array = np.asarray([v.tolist() if hasattr(v, "tolist") else v for v in values])
        except ValueError:
            array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iufb":
        raise DataError(
            f"the column {name!r} cannot be made into a tensor",
            got=f"{next(iter(values), None)!r:.60}",
            expected="numbers, one for each row, or equally long lists of numbers",
            do=f"remove it: dataset.remove_columns({name!r})",
        )
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
