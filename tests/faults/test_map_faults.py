"""A map that is disturbed: killed, out of disk, damaged, shared, larger than Arrow's offsets.

    python tests/faults/test_map_faults.py --kills 20 --seed 0

kills a map so many times, each time at a random moment, and says for each what came of it.
"""

import argparse
import contextlib
import functools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from minift import Dataset, load_from_disk
from minift.data import storage
from minift.errors import DataError
from minift.files import scratch_path

CHILD = Path(__file__).with_name("map_child.py")
ROWS, SHARD, BATCH, DELAY = 640, 40, 8, 0.012

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


# --- the process that is disturbed ---------------------------------------------------------------


@dataclass
class Child:
    """A process with the map, in a group of its own; what it says goes to files."""

    folder: Path
    num_proc: int | None = None
    delay: float = DELAY
    limit: int | None = None
    name: str = "child"
    process: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = (self.folder / f"{self.name}.{s}" for s in ("out", "err"))
        told = {"MINIFT_CACHE": str(self.folder / "cache"), "TEST_LOG": str(self.folder / "log")}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILD), str(self.num_proc), str(self.limit or "")],
                env={**os.environ, **told, "TEST_DELAY": str(self.delay), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def kill(self) -> None:
        """All of the group, as when a machine stops."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        time.sleep(0.02)  # the workers, too, are gone

    def finish(self, seconds: float = 30) -> str:
        """The line that says what the rows are."""
        code = self.process.wait(seconds)
        assert code == 0, self.err.read_text()
        return self.out.read_text().splitlines()[-1]


@pytest.fixture
def child(tmp_path):
    made: list[Child] = []

    def make(folder: Path = tmp_path, **options) -> Child:
        made.append(Child(folder, name=f"child-{len(made)}", **options))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def wait_until(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return bool(answer)


def logged(folder: Path) -> Counter:
    """How often each row was given to the function."""
    log = folder / "log"
    return Counter(log.read_text().split()) if log.exists() else Counter()


def files(cache: Path) -> dict[str, bytes]:
    """{name: content} of all but the locks."""
    found = [p for p in cache.rglob("*") if p.is_file() and p.parent.name != "locks"]
    return {str(path.relative_to(cache)): path.read_bytes() for path in found}


def left_over(cache: Path) -> list[str]:
    """What is in a cache beside whole entries and lock files."""
    key = "[0-9a-f]{32}"
    whole = re.compile(rf"map(/{key}(/(manifest\.json|data-\d+\.arrow))?)?|locks(/{key})?")
    names = [str(path.relative_to(cache)) for path in cache.rglob("*")]
    return sorted(name for name in names if not whole.fullmatch(name))


@functools.cache
def undisturbed() -> tuple[dict[str, bytes], str]:
    """Files and rows of a map that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        pair = [Child(Path(folder) / str(n), num_proc=n) for n in (None, 2)]
        said = [one.finish() for one in pair]
        found = [files(one.folder / "cache") for one in pair]
    assert found[0] == found[1] and said[0] == said[1]
    return found[0], said[0]


# --- kills ---------------------------------------------------------------------------------------


@dataclass
class Kill:
    """What became of one kill."""

    num_proc: int | None
    calls: int  # of the function, until then, of ROWS // BATCH
    shards: int  # that were whole then
    again: int  # rows that were processed twice
    allowed: int  # rows that were being processed then, at most
    same: bool
    left: list[str]

    def __str__(self) -> str:
        return (
            f"num_proc={self.num_proc!s:4} killed after {self.calls:2} calls, "
            f"{self.shards:2} shards whole; again {self.again:3} of {self.allowed} rows allowed; "
            f"bytes {'equal' if self.same else 'DIFFER'}; left {self.left or 'nothing'}"
        )


def kill_once(folder: Path, rng: random.Random) -> Kill:
    """Kill a map at a random moment and let another one go on."""
    whole, said = undisturbed()
    num_proc = rng.choice([None, 2])
    one = Child(folder, num_proc=num_proc, name="killed")
    calls, more = rng.randrange(ROWS // BATCH + 1), rng.uniform(0, 2 * DELAY)
    try:
        wait_until(lambda: logged(folder).total() >= calls * BATCH, 10)
        time.sleep(more)
    finally:
        one.kill()
    before = logged(folder).total()
    shards = len(list((folder / "cache").glob("map/*.work/*.arrow")))
    other = Child(folder, num_proc=2 if num_proc is None else None, delay=0.001, name="next")
    try:
        rows = other.finish()
    finally:
        other.kill()
    counts = logged(folder)
    assert rows == said and set(counts) == {str(i) for i in range(ROWS)}
    processes = 1 if num_proc is None else num_proc + 1  # the parent works, too, at first
    found = files(folder / "cache")
    return Kill(
        num_proc,
        before // BATCH,
        shards,
        counts.total() - ROWS,
        processes * SHARD,
        {n: d for n, d in found.items() if ".work/" not in n} == whole,
        left_over(folder / "cache"),
    )


def kill_campaign(n: int, seed: int) -> Iterator[Kill]:
    """So many kills, each in a cache of its own, at moments that the seed says."""
    rng = random.Random(seed)
    for _ in range(n):
        with tempfile.TemporaryDirectory() as folder:
            yield kill_once(Path(folder), rng)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_killed_map_goes_on_where_it_was(seed):
    [kill] = kill_campaign(1, seed)
    assert kill.same, kill
    assert kill.again <= kill.allowed, kill
    # What a file that was being written leaves behind is below.
    assert kill.left == [], kill


def test_what_was_whole_before_a_kill_is_not_done_again(child, tmp_path):
    one = child()
    wait_until(lambda: len(list(tmp_path.glob("cache/map/*.work/*.arrow"))) >= 5)
    one.kill()
    whole = len(list(tmp_path.glob("cache/map/*.work/*.arrow")))
    assert 5 <= whole < 16
    before = logged(tmp_path)
    child(num_proc=2, delay=0).finish()
    assert all((logged(tmp_path) - before)[str(i)] == 0 for i in range(whole * SHARD))


@pytest.mark.slow
def test_several_kills_of_one_map(child, tmp_path):
    """Each goes on from the one before, with any num_proc."""
    for i, num_proc in enumerate([2, None]):
        one = child(num_proc=num_proc)
        shards = 4 * i + 3
        wait_until(lambda: len(list(tmp_path.glob("cache/map/*.work/*.arrow"))) >= shards)  # noqa: B023
        one.kill()
    assert child(delay=0).finish() == undisturbed()[1]
    found = files(tmp_path / "cache")
    assert found == undisturbed()[0]
    assert logged(tmp_path).total() - ROWS <= (3 + 1) * SHARD


# --- several processes ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_call_the_function_once_a_row(child, tmp_path):
    pair = [child(), child(num_proc=2)]
    assert {one.finish() for one in pair} == {undisturbed()[1]}
    assert set(logged(tmp_path).values()) == {1} and len(logged(tmp_path)) == ROWS
    assert files(tmp_path / "cache") == undisturbed()[0]
    assert left_over(tmp_path / "cache") == []
    assert sum("waiting for it" in one.err.read_text() for one in pair) == 1


@pytest.mark.slow
def test_a_process_that_waits_is_killed(child, tmp_path):
    first = child()
    assert wait_until(lambda: logged(tmp_path))
    second = child()
    assert wait_until(lambda: "waiting for it" in second.err.read_text())
    second.kill()
    assert first.finish() == undisturbed()[1]
    assert set(logged(tmp_path).values()) == {1}
    assert files(tmp_path / "cache") == undisturbed()[0] and left_over(tmp_path / "cache") == []


@pytest.mark.slow
def test_the_process_that_computes_is_killed_while_another_waits(child, tmp_path):
    first = child(num_proc=2)
    assert wait_until(lambda: logged(tmp_path))
    second = child(delay=0.001)
    assert wait_until(lambda: "waiting for it" in second.err.read_text())
    first.kill()
    assert second.finish() == undisturbed()[1]
    assert 0 <= logged(tmp_path).total() - ROWS <= (2 + 1) * SHARD
    found = files(tmp_path / "cache")
    assert found == undisturbed()[0]


# --- no space left -------------------------------------------------------------------------------

LIMIT = 60_000  # bytes in a file: the rows from 500 on need more


@pytest.mark.slow
@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_full_disk_keeps_what_is_done(child, tmp_path, num_proc):
    one = child(num_proc=num_proc, limit=LIMIT)
    assert one.process.wait(20) == 1
    said = one.err.read_text()
    assert re.search(
        r"^minift.errors.WriteError: .*cannot be written\n.*File too large", said, re.M
    ), said
    assert "of 16 shards are kept; the same map goes on" in said
    shards = len(list((tmp_path / "cache").glob("map/*.work/*.arrow")))
    assert shards >= 10
    before = logged(tmp_path)
    assert child(delay=0).finish() == undisturbed()[1]
    assert (logged(tmp_path) - before).total() == ROWS - shards * SHARD
    found = files(tmp_path / "cache")
    assert found == undisturbed()[0]


@pytest.mark.slow
def test_a_full_disk_is_not_filled_by_what_failed(child, tmp_path):
    """Neither while the map waits to go on, nor in the entry for ever after."""
    child(limit=LIMIT).process.wait(20)
    assert not [name for name in files(tmp_path / "cache") if ".tmp-" in name]
    child(delay=0).finish()
    assert left_over(tmp_path / "cache") == []


@pytest.mark.slow
def test_what_a_kill_left_half_written_is_no_part_of_the_entry(child, tmp_path):
    """As a kill while a shard is written leaves it: a file that has no name yet."""
    one = child()
    wait_until(lambda: list(tmp_path.glob("cache/map/*.work/*.arrow")))
    one.kill()
    [work] = tmp_path.glob("cache/map/*.work")
    remains = scratch_path(work / "data-00009.arrow")
    dead = remains.with_name(remains.name.replace(f".{os.getpid()}.", f".{one.process.pid}."))
    dead.mkdir()
    (dead / "data-00009.arrow").write_bytes(b"half")
    (work / "manifest.json").write_bytes(b"half")
    assert child(delay=0).finish() == undisturbed()[1]
    assert left_over(tmp_path / "cache") == []


def test_results_in_use_do_not_use_up_the_descriptors(tmp_path):
    """The usual limit is 1024: it is reached with 64 results; here 100 and 7."""
    text = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        from minift import Dataset
        ds = Dataset.from_dict({"a": list(range(200))})
        kept = [ds.map(lambda row: {"c": row["a"]}, cache_key=str(i)) for i in range(7)]
        print(len(kept))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=30
    )
    assert run.stdout == "7\n", run.stderr


# --- damage --------------------------------------------------------------------------------------


def doubled(batch):
    return {"twice": [2 * a for a in batch["a"]], "text": [f"row {a}" for a in batch["a"]]}


@pytest.fixture
def entry(own_cache):
    """A finished entry, the dataset that it was made from, and its rows."""
    ds = Dataset.from_dict({"a": list(range(400))})
    rows = ds.map(doubled, batched=True, batch_size=10).to_dict()
    [manifest] = own_cache.glob("map/*/manifest.json")
    return manifest.parent, ds, rows


def map_again(ds: Dataset) -> tuple[Dataset, list[str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = ds.map(doubled, batched=True, batch_size=10)
    return result, [str(one.message) for one in seen]


@pytest.mark.parametrize("which", ["data-00000.arrow", "data-00013.arrow"])
def test_a_file_that_is_cut_is_computed_again_with_one_warning(entry, which):
    folder, ds, rows = entry
    whole = (folder / which).read_bytes()
    assert len(list(folder.iterdir())) == 14 + 1  # shards of 30 rows, and the manifest
    for size in (0, 8, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        os.truncate(folder / which, size)
        result, said = map_again(ds)
        assert len(said) == 1 and which in said[0], (size, said)
        assert result.to_dict() == rows and (folder / which).read_bytes() == whole
        assert map_again(ds)[1] == []
    with (folder / which).open("ab") as file:
        file.write(whole)
    result, said = map_again(ds)
    assert len(said) == 1 and result.to_dict() == rows


def test_a_manifest_that_is_cut_is_computed_again_with_one_warning(entry):
    folder, ds, rows = entry
    whole = (folder / "manifest.json").read_bytes()
    for size in (0, 1, len(whole) // 3, len(whole) - 1):
        os.truncate(folder / "manifest.json", size)
        result, said = map_again(ds)
        assert len(said) == 1 and "is not complete" in said[0], (size, said)
        assert result.to_dict() == rows


@pytest.mark.parametrize("gone", ["data-00000.arrow", "data-00013.arrow"])
def test_a_missing_shard_is_computed_again_with_one_warning(entry, gone, own_cache):
    folder, ds, rows = entry
    (folder / gone).unlink()
    with pytest.raises(DataError, match=gone):
        storage.open_folder(folder)
    result, said = map_again(ds)
    assert len(said) == 1 and gone in said[0]
    assert result.to_dict() == rows and left_over(own_cache) == []


def test_shards_that_changed_places_are_noticed(entry):
    folder, _, _ = entry
    one, other = folder / "data-00005.arrow", folder / "data-00006.arrow"
    assert one.stat().st_size == other.stat().st_size
    (folder / "x").write_bytes(one.read_bytes())
    os.replace(other, one)
    os.replace(folder / "x", other)
    with pytest.raises(DataError, match="checksum"):
        storage.open_folder(folder, verify=True)


def test_a_flipped_byte_is_found_when_asked_and_never_loses_rows(entry):
    folder, ds, rows = entry
    path = folder / "data-00005.arrow"
    whole = path.read_bytes()
    random_places = random.Random(0).sample(range(len(whole)), 12)
    for place in (0, 4, 8, 16, len(whole) - 8, len(whole) - 1, *random_places):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        with pytest.raises(DataError):
            storage.open_folder(folder, verify=True)
        try:
            result, said = map_again(ds)  # which looks at lengths only
        except (DataError, pa.ArrowException):
            continue
        assert len(result) == 400 and len(said) <= 1
        if said:
            assert result.to_dict() == rows


def test_damage_that_arrow_sees_is_computed_again_with_one_warning(entry):
    """And no error at each further call, which does not even name the file."""
    folder, ds, rows = entry
    path = folder / "data-00005.arrow"
    data = bytearray(path.read_bytes())
    [column] = storage.read_stream(path).column("text").chunks
    offsets = column.buffers()[1].to_pybytes()[: 4 * (len(column) + 1)]
    data[data.index(offsets) + 4 * len(column) + 2] ^= 0x10  # the last offset: far out
    path.write_bytes(data)
    result, said = map_again(ds)
    assert len(said) == 1 and result.to_dict() == rows


@pytest.mark.slow
def test_a_shard_of_an_unfinished_map_that_is_damaged_is_computed_again(child, tmp_path):
    one = child()
    wait_until(lambda: len(list(tmp_path.glob("cache/map/*.work/*.arrow"))) >= 6)
    one.kill()
    [work] = tmp_path.glob("cache/map/*.work")
    os.truncate(work / "data-00001.arrow", 100)
    (work / "data-00002.arrow").unlink()
    os.truncate(work / "data-00003.arrow", (work / "data-00003.arrow").stat().st_size - 8)
    os.replace(work / "data-00004.arrow", work / "data-00000.arrow")
    assert child(num_proc=2, delay=0).finish() == undisturbed()[1]
    found = files(tmp_path / "cache")
    assert found == undisturbed()[0]


# --- more than 2 GiB in a column -----------------------------------------------------------------

BIG_ROWS, BIG_TEXT = 40_960, 65_536  # 2.5 GiB


def big_text(batch):
    return {"text": [big_row(i) for i in batch["i"]]}


def big_row(i: int) -> str:
    return f"{i:08d}" + chr(97 + i % 26) * (BIG_TEXT - 16) + f"{-i:08d}"


slow = pytest.mark.skipif(
    os.environ.get("MINIFT_SLOW") != "1",
    reason="set MINIFT_SLOW=1: it needs 8 GB of disk, 8 GB of memory and a minute",
)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A mapped column of 2.5 GiB of text."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("big")
        patch.setenv("MINIFT_CACHE", str(folder))
        ds = Dataset.from_dict({"i": list(range(BIG_ROWS))})
        result = ds.map(big_text, batched=True, batch_size=100)
        again = ds.map(big_text, batched=True, batch_size=100)
        assert again.fingerprint == result.fingerprint
    assert result.data.nbytes > 2.5 * 2**30
    yield result
    for path in folder.rglob("*.arrow"):
        path.unlink()


def check_big(found: Dataset) -> None:
    assert len(found) == BIG_ROWS
    for i in (0, 1, BIG_ROWS // 2, BIG_ROWS - 1, -1):
        assert found[i]["text"] == big_row(i % BIG_ROWS)
    for part in (slice(0, 3), slice(32_760, 32_772), slice(-3, None)):
        assert found[part]["text"] == [big_row(i) for i in range(BIG_ROWS)[part]]


@slow
def test_more_than_2_gib_are_mapped_and_saved(big, tmp_path):
    check_big(big)
    few = big.shuffle(seed=1).select(range(7))
    assert [few[k]["text"] for k in range(7)] == [big_row(i) for i in few["i"]]
    back = big.sort("i", reverse=True)
    assert back[0]["text"] == big_row(BIG_ROWS - 1) and back[-1]["text"] == big_row(0)
    big.save_to_disk(tmp_path / "saved")
    try:
        check_big(load_from_disk(tmp_path / "saved"))
    finally:
        for path in tmp_path.rglob("*.arrow"):
            path.unlink()


@slow
def test_scattered_rows_of_more_than_2_gib(big):
    assert big[[5, 40_000, 17]]["text"] == [big_row(i) for i in (5, 40_000, 17)]
    few = big.shuffle(seed=1).select(range(7))
    assert few["text"][:] == [big_row(i) for i in few["i"]]
    back = big.sort("i", reverse=True)
    assert back[:2]["text"] == [big_row(BIG_ROWS - 1), big_row(BIG_ROWS - 2)]


# --- by hand -------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a map many times.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    bad, again, remains = 0, 0, 0
    for number, kill in enumerate(kill_campaign(given.kills, given.seed), 1):
        print(f"{number:3} {kill}", flush=True)
        bad += not kill.same or kill.again > kill.allowed
        again += kill.again
        remains += bool(kill.left)
    print(
        f"{given.kills} kills: {bad} with other bytes or too many rows again, "
        f"{again / given.kills:.0f} of {ROWS} rows again on average, "
        f"{remains} left something behind"
    )
    return min(bad + remains, 1)


if __name__ == "__main__":
    sys.exit(main())
