"""A disk that fails at one call, is full from there on, or loses its power: see disk.py.

Here are some places of each command, and all of them in `make faults` (campaign.py).
"""

import shutil
import subprocess
from pathlib import Path

import campaign
import disk
import pytest

pytestmark = pytest.mark.skipif(disk.library() is None, reason="NOT RUN: it needs a C compiler")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = campaign.Server(tmp_path_factory.mktemp("disk").resolve())
    yield one
    one.end()


def places(calls: int, count: int) -> list[int]:
    """So many of all calls, the last one among them, spread evenly."""
    return sorted({calls - i * calls // count for i in range(count)} - {0})


@pytest.mark.parametrize("name", ["map", "load_csv", "save_over", "save_model", "to_parquet"])
def test_a_call_fails_and_nothing_is_lost(server, name):
    """What was there stays, the error explains itself, and the same command then succeeds."""
    calls = server.reference(name)["calls"]
    for i, n in enumerate(places(calls, 3)):
        for fault in [campaign.WRITES[i % 4], campaign.SIGNALS[i % 3]]:
            problems = server.attempt(name, fault, n)
            assert not problems, f"{fault} at call {n} of {calls}: {problems[0]}"


def test_the_power_goes_and_what_was_committed_is_there(server):
    for name in ("map", "save_over"):
        for problems in server.power(name, 3, seed=1):
            assert not problems, problems[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in campaign.NAMES if name not in campaign.ONLINE])
def test_every_ninth_call_fails(server, name):
    calls = server.reference(name)["calls"]
    for i, n in enumerate(places(calls, min(calls, 12))):
        problems = server.attempt(name, list(campaign.FAULTS)[i % 7], n)
        assert not problems, f"call {n} of {calls}: {problems[0]}"
    if name not in campaign.UNRECORDED:
        for problems in server.power(name, 2, seed=0):
            assert not problems, problems[0]


# ----------------------------------------------------------------------------- the tools themselves


@pytest.fixture
def recorded(tmp_path):
    """Whatever a small program writes to a folder, as a replay."""

    def run(code: str) -> disk.Replay:
        before, folder = tmp_path / "before", (tmp_path / "folder").resolve()
        before.mkdir(exist_ok=True)
        (before / "old").write_text("old")
        shutil.copytree(before, folder)
        script = f"import os, sys; sys.path.insert(0, {str(Path(disk.__file__).parent)!r})\n"
        script += f"import disk; os.chdir({str(folder)!r})\n"
        script += f"out = os.open({str(tmp_path / 'record')!r}, os.O_WRONLY | os.O_CREAT)\n"
        script += f"disk.arm({str(folder)!r}, record=out)\n{code}"
        command = [shutil.which("python3") or "python3", "-c", script]
        subprocess.run(command, env=disk.environment(), check=True)
        return disk.Replay(before, folder, (tmp_path / "record").read_bytes())

    return run


def test_what_was_not_synced_is_lost(recorded, tmp_path):
    replay = recorded(
        "f = open('new', 'w'); f.write('one'); f.flush(); os.fsync(f.fileno())\n"
        "f.write('two'); f.close(); os.rename('new', 'old')\n"
    )
    everything, nothing = tmp_path / "everything", tmp_path / "nothing"
    replay.after(len(replay.changes), True, everything)
    assert {p.name: p.read_text() for p in everything.iterdir()} == {"old": "onetwo"}
    replay.after(len(replay.changes), False, nothing)  # the names in the folder, too
    assert {p.name: p.read_text() for p in nothing.iterdir()} == {"old": "old"}


def test_what_was_synced_stays(recorded, tmp_path):
    replay = recorded(
        "f = open('new', 'w'); f.write('one'); f.flush(); os.fsync(f.fileno()); f.close()\n"
        "os.rename('new', 'old'); d = os.open('.', os.O_RDONLY); os.fsync(d); os.unlink('old')\n"
    )
    replay.after(len(replay.changes), False, tmp_path / "there")
    assert {p.name: p.read_text() for p in (tmp_path / "there").iterdir()} == {"old": "one"}
