"""Arrow data on its way to another process: what lies in a file travels as the file's name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.data import storage


@dataclass(frozen=True)
class Call:
    """A call that unpickling makes; so the other process gets its result in place of this."""

    function: Any
    arguments: tuple[Any, ...]

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def by_file(value: Any) -> Any:
    """Return a pa.Table, or what is in one, as the calls that make it again when unpickled.

    pyarrow's own are used. Only buffers differ: a piece of a mapped file is named, and the other
    process maps the file too, instead of getting the bytes.
    """
    if isinstance(value, pa.Table | pa.ChunkedArray | pa.Array):
        function, arguments = value.__reduce__()
        return Call(function, by_file(arguments))
    if isinstance(value, pa.Buffer):
        piece = storage.file_of(value)
        return Call(open_piece, piece) if piece else value
    return type(value)(map(by_file, value)) if isinstance(value, list | tuple) else value


def open_piece(path: str, known: tuple[int, int], start: int, size: int) -> pa.Buffer:
    """Return a piece of a mapped file; a DataError if another file has its name now."""
    return storage.map_file(Path(path), known).slice(start, size)
