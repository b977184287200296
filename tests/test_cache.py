"""The cache folder with real processes: locks, what is listed, pruned and verified."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from argparse import ArgumentTypeError

import pyarrow as pa
import pytest
from minift_cache.command import parse_duration, parse_size
from minift_cache.entries import all_entries, is_locked
from rich import filesize

import minift
from minift.cli import main
from minift.data import cache, storage
from minift.errors import ConfigError

locks = pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
HOLD = """
    import sys, time
    from minift.data import cache
    with cache.lock(sys.argv[1]):
        print("locked", flush=True)
        sys.stdin.read()
    print("free", flush=True)
"""


@pytest.fixture
def other():
    """Start a process that runs some code; all are ended with the test."""
    started = []

    def start(source: str, *words: str, **environment: str) -> subprocess.Popen:
        pipes = {key: subprocess.PIPE for key in ("stdin", "stdout", "stderr")}
        run = [sys.executable, "-c", textwrap.dedent(source), *words]
        started.append(subprocess.Popen(run, text=True, env=os.environ | environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def holder(other, key: str) -> subprocess.Popen:
    process = other(HOLD, key)
    assert process.stdout.readline() == "locked\n"
    return process


def make(key: str, kind: str = "map", rows: int = 3, age_days: float = 0, function: str = "f"):
    """An entry that was last used some days ago."""
    folder = cache.entry_path(kind, key)
    table = pa.table({"x": list(range(rows))})
    storage.write(folder, [(table.schema, [table])], {"function": function})
    return aged(folder, age_days)


def aged(folder, age_days: float):
    then = time.time() - age_days * days(1)
    os.utime(folder, (then, then))
    return folder


def days(number: float) -> float:
    return number * 24 * 3600


def kept() -> set[str]:
    return {entry.path.name for entry in all_entries()}


# --- locks ---------------------------------------------------------------------------------------


@locks
def test_a_second_process_waits_and_says_for_whom(other):
    first = holder(other, "abc")
    second = other(HOLD, "abc")
    said = second.stderr.readline()
    assert f"process {first.pid} on {os.uname().nodename}" in said and "waiting" in said
    assert is_locked("abc")
    first.stdin.close()
    assert second.stdout.readline() == "locked\n"
    second.stdin.close()
    assert second.stderr.read() == "", "said once"
    assert second.wait(20) == first.wait(20) == 0
    assert not is_locked("abc")


@locks
def test_nothing_is_said_if_nobody_has_it(capfd):
    for _ in range(2):
        with cache.lock("abc") as ours:
            assert ours
    assert capfd.readouterr().err == ""


@locks
def test_a_killed_process_holds_nothing(other):
    process = holder(other, "abc")
    assert is_locked("abc") and not is_locked("abd")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    assert not is_locked("abc")
    with cache.lock("abc", wait=False) as ours:
        assert ours


@locks
def test_not_waiting(other):
    holder(other, "abc")
    with cache.lock("abc", wait=False) as ours:
        assert not ours


@locks
def test_a_lock_that_was_removed_while_somebody_waited(other):
    """The waiter must not go on with a file that nobody else will find."""
    path = cache.cache_root() / "locks" / "abc"
    with cache.lock("abc"):
        waiting = other(HOLD, "abc")
        assert "waiting" in waiting.stderr.readline()
        path.unlink()
    assert waiting.stdout.readline() == "locked\n"
    assert path.exists() and is_locked("abc")


@locks
def test_the_names_of_locks_do_not_depend_on_the_hash_seed(other):
    """F10: `datasets` names the lock of a long path by its hash()."""
    key = "f" * 200
    code = "from minift.data import cache; import sys\nwith cache.lock(sys.argv[1]): pass"
    for seed in ("0", "1", "77"):
        assert other(code, key, PYTHONHASHSEED=seed).wait(60) == 0
    assert [path.name for path in cache.cache_root().glob("locks/*")] == [key]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@locks
def test_a_file_system_without_locks(monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache.fcntl, "flock", refuse)
    with cache.lock("abc") as ours:
        assert ours
    assert not is_locked("abc")


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIFT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"cannot be written.*\n.*MINIFT_CACHE"):
        cache.lock("abc").__enter__()


def test_an_exception_frees_the_lock():
    with pytest.raises(ValueError, match="mine"), cache.lock("abc"):
        raise ValueError("mine")
    assert not is_locked("abc")


@locks
def test_threads_exclude_each_other():
    inside, most = [], []

    def work():
        with cache.lock("abc"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


# --- what is there -------------------------------------------------------------------------------


def test_entries_and_remains():
    assert all_entries() == []
    folder = make("a" * 32, rows=5, function="tokenize", age_days=2)
    make("b" * 32, "src")
    work = cache.entry_path("map", "c" * 32 + ".work")
    (work / "inner").mkdir(parents=True)
    (work / "inner" / "shard").write_bytes(b"12345")
    make("d" * 32 + ".tmp-0123456789ab")
    found = {entry.path.name: entry for entry in all_entries()}
    assert [entry.complete for entry in found.values()] == [True, False, False, True]
    first = found["a" * 32]
    assert (first.key, first.kind, first.rows, first.function) == ("a" * 32, "map", 5, "tokenize")
    assert first.bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert abs(time.time() - first.used - days(2)) < 60
    left = found[work.name]
    assert (left.key, left.bytes, left.rows, left.function) == ("c" * 32, 5, 0, "")
    assert found["b" * 32].kind == "src"


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{}", '{"rows": 1}', '{"rows": "x", "meta": {}}', "\udcff", '{"meta":1}']
)
def test_entries_with_strange_manifests(manifest):
    folder = cache.entry_path("map", "abc")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(manifest.encode(errors="surrogateescape"))
    (entry,) = all_entries()
    assert not entry.complete and entry.rows == 0


def test_unusual_names(capfd):
    names = ["with space", "ünï-код", "[bold]x", "-x", "x" * 200]
    for name in names:
        make(name, function="[red]<lambda>")
    (cache.cache_root() / "map" / "a file").write_text("")
    (cache.cache_root() / "map" / ".hidden").mkdir()
    (cache.cache_root() / "map" / "link").symlink_to(cache.entry_path("map", names[0]))
    assert kept() == set(names)
    assert main(["cache", "ls"]) == 0
    said = capfd.readouterr().out
    assert "[bold]x" in said and "[red]<lambda>" in said and "5 entries" in said
    assert main(["cache", "prune", "--all"]) == 0
    assert kept() == set()
    assert (cache.cache_root() / "map" / "a file").exists()


def test_ls(capfd):
    assert main(["cache", "ls"]) == 0
    assert "nothing in" in capfd.readouterr().out
    make("a" * 32, rows=123, function="tokenize")
    (cache.entry_path("map", "b" * 32 + ".work")).mkdir()
    assert main(["cache", "ls"]) == 0
    said = capfd.readouterr().out
    assert re.search(rf"{'a' * 12} +map +tokenize +123 +[\d.]+ k?B", said)
    assert "left by a killed run" in said and "2 entries" in said
    assert main(["cache", "ls", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)
    assert {entry["key"]: entry["rows"] for entry in listed} == {"a" * 32: 123, "b" * 32: 0}


def test_the_command_does_not_import_torch():
    code = "import sys; from minift.cli import main; main(['cache', 'ls']); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# --- prune ---------------------------------------------------------------------------------------


def test_prune_removes_what_killed_runs_left_and_nothing_else(capfd):
    make("aaa", age_days=1000)
    cache.entry_path("map", "bbb.work").mkdir()
    make("ccc.tmp-0123456789ab")
    make("ddd", "src").joinpath("manifest.json").unlink()
    assert main(["cache", "prune", "--dry-run"]) == 0
    assert "would be removed" in capfd.readouterr().out and len(kept()) == 4
    assert main(["cache", "prune"]) == 0
    assert kept() == {"aaa"}
    assert "3 entries, freed" in capfd.readouterr().out
    assert not list(cache.cache_root().glob("locks/*"))


@locks
def test_prune_leaves_what_is_being_computed(other, capfd):
    cache.entry_path("map", "abc.work").mkdir(parents=True)
    make("def")
    process = holder(other, "abc")
    holder(other, "def")
    assert main(["cache", "ls"]) == 0
    assert "being computed" in capfd.readouterr().out
    assert main(["cache", "prune", "--all", "--max-bytes", "0"]) == 0
    assert "kept: a process is computing it" in capfd.readouterr().out
    assert kept() == {"abc.work", "def"}
    assert {path.name for path in cache.cache_root().glob("locks/*")} == {"abc", "def"}
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    assert main(["cache", "prune"]) == 0
    assert kept() == {"def"}


def test_prune_by_age():
    for name, age in (("old", 31), ("young", 29), ("new", 0)):
        make(name, age_days=age)
    assert main(["cache", "prune", "--older-than", "30d"]) == 0
    assert kept() == {"young", "new"}
    assert main(["cache", "prune", "--older-than", "1w"]) == 0
    assert kept() == {"new"}


def test_prune_by_size_takes_the_least_recently_used(capfd):
    for number in range(5):
        make(f"entry{number}", rows=1000, age_days=10 - number)
    size = all_entries()[0].bytes
    assert main(["cache", "prune", "--max-bytes", str(5 * size)]) == 0
    assert len(kept()) == 5
    storage.open_folder(aged(cache.entry_path("map", "entry0"), 0))
    assert main(["cache", "prune", "--max-bytes", str(3 * size + 1)]) == 0
    assert kept() == {"entry0", "entry3", "entry4"}
    assert f"freed {filesize.decimal(2 * size)}" in capfd.readouterr().out
    assert main(["cache", "prune", "--max-bytes", "0"]) == 0
    assert kept() == set()


def test_what_has_a_reason_to_go_makes_room_first():
    make("kept", rows=1000, age_days=5)
    size = all_entries()[0].bytes
    make("left.tmp-0123456789ab", rows=1000)
    assert main(["cache", "prune", "--max-bytes", str(size)]) == 0
    assert kept() == {"kept"}


def test_prune_all(capfd):
    make("aaa"), make("bbb", "src")
    (cache.cache_root() / "demo").mkdir()
    assert main(["cache", "prune", "--all"]) == 0
    assert kept() == set() and (cache.cache_root() / "demo").exists()
    assert main(["cache", "prune", "--all"]) == 0
    assert "0 entries, freed 0 bytes" in capfd.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps what is mapped")
def test_a_mapped_entry_can_still_be_read():
    table, _ = storage.open_folder(make("abc", rows=10_000))
    assert main(["cache", "prune", "--all"]) == 0
    assert not kept() and table.column("x").to_pylist() == list(range(10_000))


def test_what_cannot_be_removed_is_said_and_goes_the_next_time(monkeypatch, capfd):
    def refuse(path):
        raise PermissionError(errno.EACCES, "in use", str(path))

    folder = make("abc")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        assert main(["cache", "prune", "--all"]) == 1
    assert "could not be removed" in capfd.readouterr().out
    assert not folder.exists() and len(kept()) == 1
    assert main(["cache", "prune"]) == 0
    assert not kept()


def test_a_map_after_prune_computes_again():
    ds = minift.Dataset.from_dict({"x": [1, 2, 3]})
    first = ds.map(lambda row: {"y": row["x"] + 1})
    assert any(entry.complete and entry.kind == "map" for entry in all_entries())
    assert main(["cache", "prune", "--all"]) == 0
    again = ds.map(lambda row: {"y": row["x"] + 1})
    assert first["y"] == again["y"] == [2, 3, 4]


# --- verify --------------------------------------------------------------------------------------


def damage(folder, how: str) -> None:
    (path,) = folder.glob("*.arrow")
    whole = bytearray(path.read_bytes())
    if how == "flipped":
        whole[len(whole) // 2] ^= 1
    elif how == "cut":
        del whole[-8:]
    elif how == "empty":
        whole.clear()
    path.unlink() if how == "gone" else path.write_bytes(whole)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_verify_finds_damage(how, capfd):
    make("a" * 32), make("c" * 32, "src")
    assert main(["cache", "verify"]) == 0
    assert "2 entries, 0 damaged" in capfd.readouterr().out
    damage(make("b" * 32, rows=1000), how)
    assert main(["cache", "verify"]) == 1
    said = capfd.readouterr().out
    assert re.search(rf"^{'b' * 12} f: .*", said, re.MULTILINE) and "1 damaged" in said
    assert len(kept()) == 3
    assert main(["cache", "verify", "--remove"]) == 1
    assert kept() == {"a" * 32, "c" * 32}
    assert main(["cache", "verify"]) == 0


def test_verify_is_no_use_of_an_entry():
    make("abc", age_days=40)
    assert main(["cache", "verify"]) == 0
    assert main(["cache", "prune", "--older-than", "30d"]) == 0
    assert kept() == set()


@locks
def test_verify_leaves_what_is_being_computed(other):
    make("abc").joinpath("manifest.json").unlink()
    holder(other, "abc")
    assert main(["cache", "verify", "--remove"]) == 0
    assert kept() == {"abc"}


# --- sizes and durations -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("0", 0), ("1000", 1000), ("10GB", 10e9), ("10 gb", 10e9), ("1.5GiB", 1.5 * 2**30)),
        *(("3k", 3000), ("3KiB", 3072), ("2T", 2e12), ("7B", 7), ("5 MB", 5e6)),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 2592000), ("1.5h", 5400), ("90m", 5400), ("45s", 45), ("2w", 1209600)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("option", ["--max-bytes", "--older-than"])
@pytest.mark.parametrize("text", ["", "x", "-1GB", "10 pigs", "1e3", "nan", "1,5d", "٣d", "10 G B"])
def test_what_is_not_understood(option, text, capfd):
    make("abc", age_days=1000)
    with pytest.raises(SystemExit, match="2"):
        main(["cache", "prune", f"{option}={text}"])
    said = capfd.readouterr().err
    assert option in said and ("KiB" in said or "(weeks)" in said)
    assert kept() == {"abc"}


def test_a_duration_has_a_unit():
    with pytest.raises(ArgumentTypeError, match="30d"):
        parse_duration("30")


@pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
def test_a_lock_file_that_prune_removed_is_no_lock(monkeypatch):
    """It is removed between opening it and locking it: others would lock a new file of the name."""
    path, open_file = cache.cache_root() / "locks" / "key", cache.Path.open
    removed = []

    def opened(self, *args, **options):
        file = open_file(self, *args, **options)
        if self == path and not removed:
            path.unlink()
            removed.append(True)
        return file

    monkeypatch.setattr(cache.Path, "open", opened)
    with cache.lock("key") as ours:
        assert ours and removed and path.is_file()
        with cache.lock("key", wait=False) as second:
            assert not second


def test_a_result_that_is_pruned_while_it_is_opened_is_computed(tmp_path):
    def gone():
        raise FileNotFoundError("data-00000.arrow")

    answers = iter([gone, lambda: "computed by another one"])
    assert cache.open_or_compute(tmp_path, "key", lambda: next(answers)(), lambda: "computed") == (
        "computed by another one"
    )
