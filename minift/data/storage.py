"""Immutable results on disk: Arrow IPC stream files and a manifest that is written last.

A folder without a manifest does not exist for a reader, and the manifest holds the length and
checksum of each file. The stream format has no length of its own: a file cut at the end of a
record batch would otherwise open as fewer rows, silently. Where there is no manifest, in files
from elsewhere, the marker that ends a stream must be there.

    data-00000.arrow     IPC stream, record batches of about 32 MiB
    manifest.json        {"rows", "files": [{"name", "rows", "bytes", "crc32", "batches"}], "meta"}
"""

import contextlib
import json
import os
import shutil
import uuid
import weakref
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minift.errors import DataError
from minift.files import sync_folder, write_text

BATCH_BYTES = 32 << 20  # few, large record batches: random access pays for each one it must search
MANIFEST = "manifest.json"
FILE_KEYS = ("name", "rows", "bytes", "crc32")
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

# {address: (the map, its file, the file's identity)}: a table can be told to another process by
# naming its files.
MAPPED: dict[int, tuple["weakref.ref[np.ndarray]", str, tuple[int, int]]] = {}


def write(folder: Path, tables: Iterable[pa.Table], schema: pa.Schema, meta: dict[str, Any]) -> int:
    """Write the tables as one committed result; the number of rows.

    Everything goes to a folder beside the final one, which is renamed when the manifest is on
    disk. A crash leaves that other folder, never half a result. If somebody else committed the
    same content meanwhile, theirs stays.
    """
    scratch = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex[:12]}")
    scratch.mkdir(parents=True)
    try:
        file = write_stream(scratch / "data-00000.arrow", tables, schema)
        commit(scratch, folder, [file], meta)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(file["rows"])


def commit(
    scratch: Path, folder: Path, files: Sequence[dict[str, Any]], meta: dict[str, Any]
) -> None:
    """Make a folder of written files the result: the manifest, and then its final name."""
    manifest = {"rows": sum(file["rows"] for file in files), "files": list(files), "meta": meta}
    write_text(scratch / MANIFEST, json.dumps(manifest, indent=1))
    sync_folder(scratch)
    rename(scratch, folder)


def rename(scratch: Path, folder: Path) -> None:
    """The folder is there whole, ours or the one of somebody who was faster."""
    for last in (False, False, True):
        try:
            os.replace(scratch, folder)
            break
        except OSError:
            if (folder / MANIFEST).is_file():
                break
            if last:
                raise
            shutil.rmtree(folder, ignore_errors=True)  # the remains of a damaged one
    sync_folder(folder.parent)


def write_stream(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> dict[str, Any]:
    """One IPC stream file; tables are cut and joined to record batches of about BATCH_BYTES.

    The file gets its name when it is whole and on disk.
    """
    rows, size = 0, 0
    waiting: list[pa.Table] = []
    batches: list[int] = []  # where each begins
    scratch = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    with scratch.open("wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:

            def flush() -> None:
                if waiting:
                    batches.append(file.tell())
                    writer.write_table(pa.concat_tables(waiting).combine_chunks())
                    waiting.clear()

            for table in tables:
                rows += table.num_rows
                step = max(1, BATCH_BYTES * table.num_rows // max(table.nbytes, 1))
                for start in range(0, table.num_rows, step):
                    part = table.slice(start, step).replace_schema_metadata(schema.metadata)
                    part = part if part.schema.equals(schema) else part.cast(schema)
                    waiting.append(part)
                    size += part.nbytes
                    if size >= BATCH_BYTES:
                        flush()
                        size = 0
            flush()
        file.flush()
        os.fsync(file.fileno())
    said = {"rows": rows, "bytes": scratch.stat().st_size, "crc32": crc32(scratch)}
    os.replace(scratch, path)
    return {"name": path.name, **said, "batches": batches}


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
    files, meta = read_manifest(folder)
    with contextlib.suppress(OSError):
        os.utime(folder)  # the time of the last use, for pruning
    return pa.concat_tables(
        [open_file(folder / said["name"], said, verify) for said in files]
    ), meta


def read_manifest(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The files of a result and its `meta`; a DataError if it is not complete."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [{key: said[key] for key in FILE_KEYS} for said in manifest["files"]]
        return files, dict(manifest["meta"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no complete result: {error!r}") from None


def open_file(path: Path, said: dict[str, Any], verify: bool = False) -> pa.Table:
    """Memory-map one file, if it is what was said of it when it was written."""
    size = path.stat().st_size if path.is_file() else None
    if size is None or size != said.get("bytes", size):
        raise DataError(f"{path} is damaged", got=f"{size} bytes", expected=said.get("bytes"))
    if verify and "crc32" in said and crc32(path) != said["crc32"]:
        raise DataError(f"{path} is damaged: its checksum differs")
    table = read_stream(path)
    if table.num_rows != said.get("rows", table.num_rows):
        raise DataError(f"{path} is damaged", got=table.num_rows, expected=said["rows"])
    return table


def read_stream(path: Path) -> pa.Table:
    """A memory-mapped IPC stream file (or IPC file) as a table, without copying.

    Raises:
        DataError: it is neither, or the stream has no end: it was cut, or its writer was.
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


def map_file(path: Path, known: tuple[int, int] | None = None) -> pa.Buffer:
    """A file as a buffer, and a note of which file it is; an error if it is not the known one."""
    if known is not None and identity(path) != known:
        raise DataError(f"{path} was replaced or removed", do="load the dataset again")
    for gone, name, file_id in list(MAPPED.values()) if known else ():
        if (name, file_id) == (str(path), known) and (live := gone()) is not None:
            return pa.py_buffer(live)  # one map, however many pieces of it are named
    if path.stat().st_size == 0:  # which cannot be mapped
        raise DataError(f"{path} is not a readable Arrow file: it is empty")
    with pa.memory_map(str(path)) as file:  # which is closed: the map needs no open file
        mapped = np.frombuffer(file.read_buffer(), np.uint8)
    buffer = pa.foreign_buffer(mapped.ctypes.data, mapped.size, base=mapped)
    address, path = buffer.address, path.resolve()
    gone = weakref.ref(mapped, lambda _: MAPPED.pop(address, None))
    MAPPED[address] = gone, str(path), identity(path)
    return buffer


def identity(path: Path) -> tuple[int, int]:
    """Differs for another file of the same name; (0, 0) if there is none."""
    stat = path.stat() if path.is_file() else None
    return (stat.st_ino, stat.st_mtime_ns) if stat else (0, 0)


def file_of(buffer: pa.Buffer) -> tuple[str, tuple[int, int], int, int] | None:
    """The file that a buffer is a piece of, which one it is, where and how long; None if none."""
    for address, (mapped, path, known) in list(MAPPED.items()):
        file = mapped()
        start = buffer.address - address
        if file is not None and start >= 0 and start + buffer.size <= len(file):
            same = identity(Path(path)) == known
            return (path, known, start, buffer.size) if same else None
    return None


def crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
