"""Immutable results on disk: Arrow IPC stream files in a folder with a manifest (files.py).

The stream format has no length of its own: a file cut at the end of a record batch would otherwise
open as fewer rows, silently. In files from elsewhere, which no manifest describes, the marker that
ends a stream must be present.

    data-00000.arrow     IPC stream, record batches of about 32 MiB
    manifest.json        written last; its "meta" has the number of rows, and what the writer adds
"""

import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minift import files
from minift.errors import DataError
from minift.files import damaged

BATCH_BYTES = 32 << 20  # few, large record batches: random access pays for each one it must search
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

# {address: (the map, its file, the file's identity)}: a table can be sent to another process by
# naming its files.
MAPPED: dict[int, tuple["weakref.ref[np.ndarray]", str, tuple[int, int]]] = {}


def write(
    folder: Path, attempts: Iterable[tuple[pa.Schema, Iterable[pa.Table]]], meta: dict[str, Any]
) -> int:
    """Write tables as one committed result, and return the number of rows.

    A crash leaves a hidden folder beside it, never half a result. If another process committed the
    same content in the meantime, its result stays.

    Args:
        folder: where the result will be.
        attempts: tables and their schema; of several attempts the last one replaces the others.
        meta: JSON to keep with the result.
    """
    whole = dict(meta)
    with files.new_folder(folder, whole, replace=False) as scratch:
        for schema, tables in attempts:
            whole["rows"] = write_stream(scratch / "data-00000.arrow", tables, schema)
    return int(whole["rows"])


def write_stream(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write tables as one IPC stream file, and return the number of rows.

    They are cut and joined to record batches of about BATCH_BYTES. While one is made, another
    thread brings those before it to the disk.
    """
    rows, disk, synced = 0, ThreadPoolExecutor(1), list[Future[None]]()
    with files.new_file(path) as new, disk, new.open("wb") as f, pa.ipc.new_stream(f, schema) as to:
        for table in record_batches(tables, schema):
            to.write_table(table)
            f.flush()
            synced.append(disk.submit(files.sync, new))
            rows += table.num_rows
            del table  # before the next one is put together
        for one in synced:
            one.result()  # its errors are reported once: a later sync may not see them
    return rows


def record_batches(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of the tables, cut and joined to about BATCH_BYTES, with this schema."""
    pending: list[pa.Table] = []
    size = 0
    for table in tables:
        step = max(1, BATCH_BYTES * table.num_rows // max(table.nbytes, 1))
        for start in range(0, table.num_rows, step):
            part = table.slice(start, step).replace_schema_metadata(schema.metadata)
            pending.append(part if part.schema.equals(schema) else part.cast(schema))
            size += pending[-1].nbytes
            if size >= BATCH_BYTES:
                yield pa.concat_tables(pending).combine_chunks()
                pending, size = [], 0
    if pending:
        yield pa.concat_tables(pending).combine_chunks()


def open_folder(folder: Path, verify: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """Memory-map a committed result.

    Args:
        folder: where `commit` put it.
        verify: also read every byte and compare checksums.

    Returns:
        The table, whose buffers are the mapped files, and the `meta` that was written.

    Raises:
        DataError: there is no manifest, or a file is not what the manifest says.
    """
    manifest = files.read_manifest(folder)
    with contextlib.suppress(OSError):
        os.utime(folder)  # the time of the last use, for pruning
    tables = [open_file(folder / name, e, verify) for name, e in manifest.files.items()]
    rows = sum(table.num_rows for table in tables)
    if not tables or rows != manifest.meta.get("rows"):
        raise damaged(folder, "rows are missing", got=rows, expected=manifest.meta.get("rows"))
    return pa.concat_tables(tables), manifest.meta


def open_file(path: Path, entry: Mapping[str, Any], verify: bool = False) -> pa.Table:
    """Memory-map one file, if it is as its entry says: length, rows and with `verify` digest."""
    files.check_file(path, entry, verify)
    table = read_stream(path)
    if table.num_rows != entry.get("rows", table.num_rows):
        raise damaged(path, "rows are missing", got=table.num_rows, expected=entry["rows"])
    return table


def read_stream(path: Path) -> pa.Table:
    """Return a memory-mapped IPC stream file (or IPC file) as a table, without copying.

    Raises:
        DataError: it is neither, or the stream has no end: it was cut, or its writer was killed.
    """
    buffer = map_file(path)
    try:
        if buffer.slice(0, 6).to_pybytes() == b"ARROW1":
            return pa.ipc.open_file(buffer).read_all()
        table = pa.ipc.open_stream(buffer).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Arrow file: {error}") from None
    if buffer.slice(max(buffer.size - 8, 0)).to_pybytes() != END_OF_STREAM:
        raise DataError(f"{path} is cut off: the marker that ends an Arrow stream is missing")
    return table


def map_file(path: Path, expected: tuple[int, int] | None = None) -> pa.Buffer:
    """Return a file as a mapped buffer, and note in MAPPED which file it is.

    Args:
        path: the file.
        expected: its `identity`; with another one the file was replaced, which is an error.
    """
    if expected is not None and identity(path) != expected:
        raise DataError(f"{path} was replaced or removed", do="load the dataset again")
    for reference, name, file_identity in list(MAPPED.values()) if expected else ():
        if (name, file_identity) == (str(path), expected) and (mapped := reference()) is not None:
            return pa.py_buffer(mapped)  # one map, however many pieces of it are named
    if path.stat().st_size == 0:  # which cannot be mapped
        raise DataError(f"{path} is not a readable Arrow file: it is empty")
    with pa.memory_map(str(path)) as file:  # which is closed: the map needs no open file
        mapped = np.frombuffer(file.read_buffer(), np.uint8)
    buffer = pa.foreign_buffer(mapped.ctypes.data, mapped.size, base=mapped)
    address, path = buffer.address, path.resolve()
    reference = weakref.ref(mapped, lambda _: MAPPED.pop(address, None))
    MAPPED[address] = reference, str(path), identity(path)
    return buffer


def identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of the same name; (0, 0) if there is none."""
    stat = path.stat() if path.is_file() else None
    return (stat.st_ino, stat.st_mtime_ns) if stat else (0, 0)


def file_of(buffer: pa.Buffer) -> tuple[str, tuple[int, int], int, int] | None:
    """Return the mapped file that a buffer lies in, its identity, the offset and the length."""
    for address, (reference, path, file_identity) in list(MAPPED.items()):
        mapped = reference()
        start = buffer.address - address
        if mapped is not None and start >= 0 and start + buffer.size <= len(mapped):
            same = identity(Path(path)) == file_identity
            return (path, file_identity, start, buffer.size) if same else None
    return None


# ---------------------------------------------------------------------------- to another process


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
        piece = file_of(value)
        return Call(open_piece, piece) if piece else value
    return type(value)(map(by_file, value)) if isinstance(value, list | tuple) else value


def open_piece(path: str, known: tuple[int, int], start: int, size: int) -> pa.Buffer:
    """Return a piece of a mapped file; a DataError if another file has its name now."""
    return map_file(Path(path), known).slice(start, size)
