"""Results on disk: whatever happens to a file, a reader gets all the rows or an error."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading

import pyarrow as pa
import pytest

from minift import files
from minift.data import cache, storage
from minift.errors import DataError

ROWS = 1000
SCHEMA = pa.schema([("i", pa.int64()), ("text", pa.string())])


def table(start: int = 0, rows: int = ROWS) -> pa.Table:
    numbers = range(start, start + rows)
    return pa.table({"i": numbers, "text": [f"row {i}" for i in numbers]}, schema=SCHEMA)


@pytest.fixture
def small_batches(monkeypatch):
    """Record batches of a few kilobytes, so that a small file has many."""
    monkeypatch.setattr(storage, "BATCH_BYTES", 1000)


@pytest.fixture
def folder(tmp_path, small_batches):
    storage.write(
        tmp_path / "entry", [(SCHEMA, [table(0, 700), table(700, 300)])], {"function": "f"}
    )
    return tmp_path / "entry"


def batch_ends(path) -> list[int]:
    """Where a stream may be cut so that what is left is a stream again, with fewer rows."""
    source = pa.BufferReader(path.read_bytes())
    reader = pa.ipc.open_stream(source)
    ends = [source.tell()]
    for _ in reader:
        ends.append(source.tell())
    return ends[:-1] if ends[-1] == path.stat().st_size else ends


# --- writing and opening -------------------------------------------------------------------------


def test_what_was_written_is_read(folder):
    found, meta = storage.open_folder(folder, verify=True)
    assert found.equals(table())
    assert meta == {"function": "f", "rows": ROWS}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["entry"]
    assert sorted(path.name for path in folder.iterdir()) == ["data-00000.arrow", "manifest.json"]


def test_no_rows_and_no_tables(tmp_path):
    assert storage.write(tmp_path / "none", [(SCHEMA, [])], {}) == 0
    assert storage.write(tmp_path / "empty", [(SCHEMA, [table(0, 0)])], {}) == 0
    for name in ("none", "empty"):
        assert storage.open_folder(tmp_path / name)[0].equals(table(0, 0))


def test_batches_are_cut_and_joined_by_size(tmp_path, small_batches):
    one_large, many_small = [table(0, 2000)], [table(i, 1) for i in range(2000)]
    for name, tables in (("large", one_large), ("small", many_small)):
        storage.write(tmp_path / name, [(SCHEMA, tables)], {})
        path = tmp_path / name / "data-00000.arrow"
        sizes = [batch.nbytes for batch in pa.ipc.open_stream(path.read_bytes())]
        assert 20 < len(sizes) < 100, name
        assert max(sizes) < 2.5 * storage.BATCH_BYTES
        assert storage.open_folder(tmp_path / name)[0].equals(table(0, 2000))


def test_columns_are_cast_to_the_schema(tmp_path):
    given = pa.table({"i": pa.array([1], pa.int8()), "text": ["a"]})
    storage.write(tmp_path / "entry", [(SCHEMA, [given])], {})
    assert storage.open_folder(tmp_path / "entry")[0].schema == SCHEMA


def test_opening_maps_the_file_and_copies_nothing(folder):
    before = pa.total_allocated_bytes()
    found, _ = storage.open_folder(folder)
    assert found.nbytes > 15_000
    assert pa.total_allocated_bytes() - before < 2000


# --- damage --------------------------------------------------------------------------------------


def test_cut_at_every_record_batch(folder):
    """The stream format would open each of these, as fewer rows."""
    path = folder / "data-00000.arrow"
    raw, ends = path.read_bytes(), batch_ends(path)
    assert len(ends) > 10
    for end in [*ends, len(raw) - 1, len(raw) - 8, 1, 0]:
        path.write_bytes(raw[:end])
        with pytest.raises(DataError, match="damaged"):
            storage.open_folder(folder)
        with pytest.raises(DataError, match=r"cut off|not a readable Arrow file"):
            storage.read_stream(path)
    assert any(readable_as_fewer_rows(raw[:end]) for end in ends), "this test tests nothing"


def readable_as_fewer_rows(raw: bytes) -> bool:
    return 0 < pa.ipc.open_stream(raw).read_all().num_rows < ROWS


def test_cut_anywhere(folder):
    path = folder / "data-00000.arrow"
    raw = path.read_bytes()
    for end in random.Random(0).sample(range(len(raw)), 60):
        path.write_bytes(raw[:end])
        with pytest.raises(DataError):
            storage.open_folder(folder)
        with pytest.raises(DataError):
            storage.read_stream(path)


def test_bytes_appended(folder):
    path = folder / "data-00000.arrow"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match="damaged"):
        storage.open_folder(folder)


def test_a_flipped_byte_is_found_when_asked(folder):
    path = folder / "data-00000.arrow"
    raw = bytearray(path.read_bytes())
    for position in random.Random(1).sample(range(len(raw)), 40):
        raw[position] ^= 1
        path.write_bytes(raw)
        with pytest.raises(DataError, match="checksum"):
            storage.open_folder(folder, verify=True)
        raw[position] ^= 1
    path.write_bytes(raw)
    assert storage.open_folder(folder, verify=True)[0].num_rows == ROWS


def test_missing_manifest(folder):
    (folder / files.MANIFEST).unlink()
    with pytest.raises(DataError, match="is not complete"):
        storage.open_folder(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="is not complete"):
        storage.open_folder(tmp_path / "nothing")


def test_missing_data_file(folder):
    (folder / "data-00000.arrow").unlink()
    with pytest.raises(DataError, match="damaged"):
        storage.open_folder(folder)


def test_a_manifest_that_is_cut_or_flipped_never_opens_as_something_else(folder):
    path = folder / files.MANIFEST
    raw = path.read_bytes()
    for end in range(0, len(raw) - 1, 7):
        path.write_bytes(raw[:end])
        with pytest.raises(DataError):
            storage.open_folder(folder)
    for position in range(len(raw)):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 2]) + raw[position + 1 :])
        try:
            found, _ = storage.open_folder(folder, verify=True)
        except DataError:
            continue
        assert found.equals(table()), position


BAD_MANIFESTS = ["", "{}", "[]", "null", '{"format": 2, "files": [{}], "meta": {}}', "\xff"]


@pytest.mark.parametrize("text", BAD_MANIFESTS)
def test_a_manifest_of_another_shape(folder, text):
    (folder / files.MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"is not complete|another version"):
        storage.open_folder(folder)


OLDER = {
    "rows": ROWS,
    "files": [{"name": "data-00000.arrow", "rows": ROWS, "bytes": 1, "crc32": 1, "batches": [0]}],
    "meta": {"function": "f"},
}


def test_a_result_of_another_version_is_refused_by_that_name(folder):
    """As the first versions wrote it, and as a later one may."""
    newer = {**json.loads((folder / files.MANIFEST).read_text()), "format": files.FORMAT + 1}
    for manifest in (OLDER, newer):
        (folder / files.MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(DataError, match="written by another version of minift"):
            storage.open_folder(folder)


def test_fewer_rows_than_the_manifest_says(folder):
    """A whole file, but another one."""
    path = folder / "data-00000.arrow"
    storage.write_stream(path, [table(0, 10)], SCHEMA)
    manifest = json.loads((folder / files.MANIFEST).read_text())
    manifest["files"][path.name] = files.file_entry(path)
    (folder / files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="damaged"):
        storage.open_folder(folder, verify=True)


# --- files from elsewhere ------------------------------------------------------------------------


def test_stream_and_file_format(tmp_path):
    for name, make in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        with make(tmp_path / name, SCHEMA) as writer:
            writer.write_table(table())
        assert storage.read_stream(tmp_path / name).equals(table())


@pytest.mark.parametrize("raw", [b"", b"ARROW1", b"ARROW1\0\0 no footer", b"PAR1 something else"])
def test_no_arrow_file(tmp_path, raw):
    (tmp_path / "x.arrow").write_bytes(raw)
    with pytest.raises(DataError, match=r"x\.arrow is not a readable Arrow file"):
        storage.read_stream(tmp_path / "x.arrow")


# --- crashes and rivals --------------------------------------------------------------------------

KILLED = """
    import os, signal, sys
    from pathlib import Path
    import pyarrow as pa
    from minift import files
    from minift.data import storage

    storage.BATCH_BYTES = 1000
    folder, moment = Path(sys.argv[1]), sys.argv[2]
    schema = pa.schema([("i", pa.int64())])

    def die(*_, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    def tables():
        for i in range(100):
            if moment == "batch" and i == 50:
                die()
            yield pa.table({"i": range(1000)}, schema=schema)

    if moment == "manifest":
        files.file_entry = die
    if moment == "rename":
        files.put_in_place = die
    storage.write(folder, [(schema, tables())], {})
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("moment", ["batch", "manifest", "rename"])
def test_kill_leaves_nothing_that_is_trusted(tmp_path, moment):
    folder = tmp_path / "entry"
    run = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), moment]
    assert subprocess.run(run, check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".entry.tmp-*"))) == 1
    with pytest.raises(DataError, match="is not complete"):
        storage.open_folder(folder)
    storage.write(folder, [(SCHEMA, [table()])], {})
    assert storage.open_folder(folder, verify=True)[0].equals(table())


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def tables():
        yield table()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        storage.write(tmp_path / "entry", [(SCHEMA, tables())], {})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_entry_makes_way(folder):
    (folder / files.MANIFEST).unlink()
    storage.write(folder, [(SCHEMA, [table(5, 5)])], {})
    assert storage.open_folder(folder)[0].equals(table(5, 5))


def test_what_somebody_else_committed_stays(folder):
    opened, _ = storage.open_folder(folder)
    inode = (folder / files.MANIFEST).stat().st_ino
    storage.write(folder, [(SCHEMA, [table()])], {})
    assert (folder / files.MANIFEST).stat().st_ino == inode
    assert opened.equals(table())


def test_an_entry_that_cannot_be_renamed_is_an_error(tmp_path):
    (tmp_path / "entry").write_text("a file is in the way")
    with pytest.raises(OSError, match="entry"):
        storage.write(tmp_path / "entry", [(SCHEMA, [table()])], {})
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


@pytest.mark.parametrize("remains", [False, True])
def test_concurrent_writers_all_succeed(tmp_path, monkeypatch, remains):
    """All reach the commit together; each of them then finds a whole result."""
    folder, together = tmp_path / "entry", threading.Barrier(8)
    if remains:  # of a damaged entry
        folder.mkdir()
        (folder / "data-00000.arrow").write_bytes(b"")
    put_in_place = files.put_in_place

    def wait(*args):
        together.wait()
        put_in_place(*args)

    monkeypatch.setattr(files, "put_in_place", wait)
    results = []

    def write():
        try:
            results.append(storage.write(folder, [(SCHEMA, [table()])], {}))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [ROWS] * 8
    assert storage.open_folder(folder, verify=True)[0].equals(table())
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_small_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    files.write_text(path, "before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "after")
    assert path.read_text() == "before"


# --- the cache folder ----------------------------------------------------------------------------


def test_cache_root_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFT_CACHE", str(tmp_path / "here"))
    assert cache.entry_path("map", "abc") == tmp_path / "here" / "map" / "abc"
    monkeypatch.delenv("MINIFT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / ".cache" / "minift"


@pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
def test_one_at_a_time(monkeypatch):
    inside, most = [], []

    def work():
        with cache.lock("abc"):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_a_file_system_without_locks(monkeypatch):
    class NoLocks:
        LOCK_EX, LOCK_NB = 2, 4

        @staticmethod
        def flock(*_):
            raise OSError("no locks available")

    monkeypatch.setattr(cache, "fcntl", NoLocks)
    with cache.lock("abc"):
        pass
