"""Immutable results on disk: Arrow IPC stream files and a manifest that is written last.

A folder without a manifest does not exist for a reader, and the manifest holds the length and
checksum of each file. The stream format has no length of its own: a file cut at the end of a
record batch would otherwise open as fewer rows, silently. Where there is no manifest, in files
from elsewhere, the marker that ends a stream must be there.

    data-00000.arrow     IPC stream, record batches of about 32 MiB
    manifest.json        {"rows", "files": [{"name", "rows", "bytes", "crc32"}], "meta"}
"""

import json
import mmap
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from minift.errors import DataError

BATCH_BYTES = 32 << 20  # few, large record batches: random access pays for each one it must search
MANIFEST = "manifest.json"
FILE_KEYS = ("name", "rows", "bytes", "crc32")
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


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
        manifest = {"rows": file["rows"], "files": [file], "meta": meta}
        write_text(scratch / MANIFEST, json.dumps(manifest, indent=1))
        sync_folder(scratch)
        rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return int(manifest["rows"])


def rename(scratch: Path, folder: Path) -> None:
    """Commit: the folder is there whole, ours or the one of somebody who was faster."""
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
    """One IPC stream file; tables are cut and joined to record batches of about BATCH_BYTES."""
    rows, size = 0, 0
    waiting: list[pa.Table] = []
    with path.open("wb") as file:
        with pa.ipc.new_stream(file, schema) as writer:

            def flush() -> None:
                if waiting:
                    writer.write_table(pa.concat_tables(waiting).combine_chunks())
                    waiting.clear()

            for table in tables:
                rows += table.num_rows
                step = max(1, BATCH_BYTES * table.num_rows // max(table.nbytes, 1))
                for start in range(0, table.num_rows, step):
                    part = table.slice(start, step).cast(schema)
                    waiting.append(part)
                    size += part.nbytes
                    if size >= BATCH_BYTES:
                        flush()
                        size = 0
            flush()
        file.flush()
        os.fsync(file.fileno())
    return {"name": path.name, "rows": rows, "bytes": path.stat().st_size, "crc32": crc32(path)}


def open_folder(folder: Path, verify: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """Memory-map a committed result.

    Args:
        folder: as given to `write`.
        verify: also read every byte and compare checksums.

    Returns:
        The table, whose buffers are the mapped files, and the `meta` that was written.

    Raises:
        DataError: there is no manifest, or a file is not what the manifest says.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [{key: said[key] for key in FILE_KEYS} for said in manifest["files"]]
        meta = manifest["meta"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no complete result: {error!r}") from None
    tables = []
    for said in files:
        path = folder / said["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != said["bytes"]:
            raise DataError(f"{path} is damaged", got=f"{size} bytes", expected=said["bytes"])
        if verify and crc32(path) != said["crc32"]:
            raise DataError(f"{path} is damaged: its checksum differs")
        tables.append(read_stream(path))
        if tables[-1].num_rows != said["rows"]:
            raise DataError(f"{path} is damaged", got=tables[-1].num_rows, expected=said["rows"])
    return pa.concat_tables(tables), meta


def read_stream(path: Path) -> pa.Table:
    """A memory-mapped IPC stream file (or IPC file) as a table, without copying.

    Raises:
        DataError: it is neither, or the stream has no end: it was cut, or its writer was.
    """
    if path.stat().st_size == 0:  # which cannot be mapped
        raise DataError(f"{path} is not a readable Arrow file: it is empty")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffer = pa.py_buffer(mapped)
    try:
        if mapped[:6] == b"ARROW1":
            return pa.ipc.open_file(buffer).read_all()
        table = pa.ipc.open_stream(buffer).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Arrow file: {error}") from None
    if mapped[-len(END_OF_STREAM) :] != END_OF_STREAM:
        raise DataError(f"{path} is cut off: the marker that ends an Arrow stream is missing")
    return table


def crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or not at all, and still there after a crash."""
    scratch = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (not possible, nor needed, on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
