"""A training run that is disturbed: killed, told to end, out of disk, its checkpoints damaged.

    python tests/faults/test_resume_faults.py --kills 20 --seed 0

kills runs so many times, each time at a random moment, and says for each what came of it.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import resume_child

from minift import files
from minift.errors import DataError, MissingFileError, TrainingError
from minift.training import checkpoint

SLOW = 0.012  # seconds that a step takes longer, and parts of saving and evaluating
FILES = (
    *("config.json", "model.safetensors", "optimizer.safetensors", "state.json"),
    *("tokenizer.json", "tokenizer_config.json", "manifest.json"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX"),
]


# --- the process that is disturbed ---------------------------------------------------------------


@functools.cache
def server():
    """Processes that begin with torch imported, which takes longer than the runs here."""
    context = multiprocessing.get_context("forkserver")
    modules = ["models.auto", "training.trainer", "tokenizer", "evaluate", "models.bert"]
    context.set_forkserver_preload(["pytest", "torch._dynamo", *(f"minift.{m}" for m in modules)])
    return context


@functools.cache
def model() -> str:
    folder = Path(tempfile.mkdtemp(prefix="minift-resume-")) / "model"
    return str(resume_child.make(folder))


class Child:
    """A process that trains into a folder, in a group of its own; see resume_child.py."""

    def __init__(self, folder: Path, **settings) -> None:
        self.folder, self.pid, self.code = folder, 0, None
        for end in (".phase", ".result", ".err"):
            Path(f"{folder}{end}").unlink(missing_ok=True)
        self.process = server().Process(
            target=resume_child.disturbed, args=(model(), str(folder)), kwargs=settings
        )
        self.process.start()

    def phase(self) -> tuple[str, int]:
        """What the process does now, and after which step."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            name, step = Path(f"{self.folder}.phase").read_text().split()
            return name, int(step)
        return "load", 0

    def until(self, *phases: str, seconds: float = 60) -> bool:
        end = time.monotonic() + seconds
        while (there := self.phase()[0] not in phases) and self.process.is_alive():
            assert time.monotonic() < end, self.said()
            time.sleep(0.001)
        return not there

    def signal(self, number: int, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.process.pid, number)

    def kill(self) -> None:
        if self.process.is_alive():
            self.signal(signal.SIGKILL)
        self.process.join()

    def wait(self, seconds: float = 60) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it does not end: {self.said()}"
        return self.process.exitcode

    def said(self) -> str:
        path = Path(f"{self.folder}.err")
        return path.read_text() if path.is_file() else ""

    def finish(self) -> dict:
        """What came of the run."""
        assert self.wait() == 0, self.said()
        return json.loads(Path(f"{self.folder}.result").read_text())


@pytest.fixture
def child(tmp_path):
    made: list[Child] = []

    def start(folder: Path = tmp_path / "out", **settings) -> Child:
        made.append(Child(folder, **settings))
        return made[-1]

    yield start
    for one in made:
        one.kill()


@functools.cache
def undisturbed() -> dict:
    """What comes of a run that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        return Child(Path(folder) / "out").finish()


@functools.cache
def duration() -> float:
    """Seconds of a slowed run that nobody disturbs, from its first step to its end."""
    with tempfile.TemporaryDirectory() as folder:
        one = Child(Path(folder) / "out", slow=SLOW)
        assert one.until("train", "evaluate", "save")
        started = time.monotonic()
        assert one.wait() == 0, one.said()
        return time.monotonic() - started


def resumed(folder: Path, **settings) -> dict:
    """What comes of a run that goes on in this process."""
    one = resume_child.trainer(Path(model()), folder, **settings)
    one.train(resume_from_checkpoint=settings.get("resume_from_checkpoint", True))
    return json.loads(json.dumps(resume_child.result(one)))


def checkpoints(folder: Path) -> list[str]:
    return [path.name for path in checkpoint.list_checkpoints(folder)]


def tree(folder: Path) -> dict[str, bytes]:
    """{name: content} of all files."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def left_over(folder: Path) -> list[str]:
    """What is in the folder of a finished run beside what belongs there."""
    expected = r"run\.json|metrics\.jsonl|best-\d+|checkpoint-\d+"
    return sorted(p.name for p in folder.iterdir() if not re.fullmatch(expected, p.name))


# --- kills ---------------------------------------------------------------------------------------


@dataclass
class Kill:
    """What became of one kill; `same` and `left` are those of the run when it came to its end."""

    moment: float = 0.0  # seconds after the process began to train
    phase: str = ""
    step: int = 0
    resumed: str = ""
    skipped: int = 0
    same: bool = False
    left: Sequence[str] = ()

    def __str__(self) -> str:
        return (
            f"killed {self.moment:5.2f} s in, phase {self.phase:8} after step {self.step:2}; "
            f"went on from {self.resumed:13} {self.skipped} skipped; "
            f"result {'equal' if self.same else 'DIFFERENT'}; left {self.left or 'nothing'}"
        )


def kill_one_run(folder: Path, rng: random.Random, phases: Sequence[str]) -> list[Kill]:
    """Kill one run again and again, and let it come to its end.

    Args:
        phases: one for each kill: what the process must be doing then, or "" for any moment.
    """
    kills, out, last = [], folder / "out", resume_child.STEPS - 1
    pace = duration() / resume_child.STEPS  # saving and evaluating included
    for phase in phases:
        there = checkpoints(out)
        one = Child(out, slow=SLOW, resume_from_checkpoint="true" if there else None)
        try:
            note_resumed(one, kills)
            one.until("train", "evaluate", "save")
            started = time.monotonic()
            done = int(there[-1].rpartition("-")[2]) if there else 0
            step = rng.randint(min(done, last), last) if not phase else rng.randint(0, 10)
            while one.process.is_alive() and one.phase()[1] < step:
                time.sleep(0.001)
            if phase:
                one.until(phase)
            time.sleep(rng.uniform(0, SLOW if phase else pace))  # not always at its beginning
            one.kill()
        finally:
            one.kill()
        name, step = one.phase()
        name = name if one.process.exitcode == -signal.SIGKILL else "ended"
        kills.append(Kill(time.monotonic() - started, name, step))
        note_resumed(one, kills[:-1])
    end = Child(out, resume_from_checkpoint="true" if checkpoints(out) else None)
    try:
        found = end.finish()
    finally:
        end.kill()
    note_resumed(end, kills)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in lines if "train_loss" not in record]
    whole = steps == [r["step"] for r in undisturbed()["history"] if "train_loss" not in r]
    for kill in kills:
        kill.same, kill.left = found == undisturbed() and whole, left_over(out)
    return kills


def note_resumed(one: Child, kills: list[Kill]) -> None:
    """From where the run went on after the last of these kills, as it said."""
    if kills:
        going_on = re.search(r"^going on from .*/(.*)$", one.said(), re.M)
        kills[-1].resumed = going_on[1] if going_on else "the beginning"
        kills[-1].skipped = len(re.findall("^skipped", one.said(), re.M))


def kill_campaign(n: int, seed: int) -> Iterator[Kill]:
    """So many kills, one to three of them to a run, at moments that the seed says."""
    rng = random.Random(seed)
    while n:
        # Half of them at any moment, the others while something is written or evaluated.
        chosen = ("", "", "save", "evaluate")
        phases = [rng.choice(chosen) for _ in range(min(n, rng.randint(1, 3)))]
        with tempfile.TemporaryDirectory() as folder:
            yield from kill_one_run(Path(folder), rng, phases)
        n -= len(phases)


@pytest.mark.parametrize("phase", ["train", "evaluate", "save"])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, phase):
    [kill] = kill_one_run(tmp_path, random.Random(phase), [phase])
    assert kill.phase == phase and kill.same and not kill.left, kill


def test_a_run_that_is_killed_several_times(tmp_path):
    kills = kill_one_run(tmp_path, random.Random(0), ["save", "evaluate", "save"])
    assert len(kills) == 3 and all(kill.same for kill in kills), list(map(str, kills))


def test_a_checkpoint_that_was_being_written_is_never_believed(child, tmp_path):
    """At any moment the folders called checkpoint-STEP are whole."""
    one, seen = child(slow=SLOW), set()
    while one.process.is_alive():
        for folder in [
            *checkpoint.list_checkpoints(tmp_path / "out"),
            *(tmp_path / "out").glob("best-*"),
        ]:
            inside: set[str] = set()
            with contextlib.suppress(FileNotFoundError):  # it may be removed at any moment
                inside = set(os.listdir(folder))
            still = folder.is_dir()
            assert not still or "manifest.json" in inside, (folder, inside)
            seen.add(folder.name)
    assert one.finish() == undisturbed() and len(seen) > 3


# --- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed_at_14(tmp_path_factory) -> Path:
    """The folder of a run that was killed after step 14: it has checkpoint-8 and checkpoint-12."""
    folder = tmp_path_factory.mktemp("killed") / "out"
    one = Child(folder, wait_at=15)
    assert one.until("wait")
    one.kill()
    assert checkpoints(folder) == ["checkpoint-8", "checkpoint-12"]
    return folder


@pytest.fixture
def out(killed_at_14, tmp_path) -> Path:
    """A copy of it, to damage."""
    shutil.copytree(killed_at_14, tmp_path / "out")
    return tmp_path / "out"


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


DAMAGE = {"truncated": truncated, "flipped": flipped, "missing": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(killed_at_14, tmp_path, capsys, damage):
    for name in (name for name in FILES if "token" not in name):
        out = tmp_path / name
        shutil.copytree(killed_at_14, out)
        assert (out / "checkpoint-12" / name).is_file()
        damage(out / "checkpoint-12" / name)
        assert resumed(out) == undisturbed(), name
        said = capsys.readouterr().err
        assert re.search(r"^skipped .*/checkpoint-12: ", said, re.M), (name, said)
        assert name in said or name == "manifest.json", (name, said)
        assert re.search(r"^going on from .*/checkpoint-8$", said, re.M), (name, said)
    assert {path.name for path in (out / "checkpoint-16").iterdir()} == set(FILES)


def test_a_folder_with_half_of_the_files_is_passed_over(out, capsys):
    for name in FILES[::2]:
        (out / "checkpoint-12" / name).unlink()
    assert resumed(out) == undisturbed()
    assert "skipped" in capsys.readouterr().err


def test_any_flipped_bit_in_a_manifest_is_an_answer_not_a_crash(out):
    """It is skipped, or the bit is in what nothing depends on."""
    path, run = out / "checkpoint-12" / "manifest.json", checkpoint.run_id_of(out / "checkpoint-12")
    whole, found = path.read_bytes(), Counter()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 7
        path.write_bytes(data)
        said: list[str] = []
        newest = checkpoint.newest_valid(out, run, said.append).name
        assert (newest == "checkpoint-12") == (not said), said
        assert all("checkpoint-12" in line for line in said)
        found[newest] += 1
    assert found["checkpoint-8"] > 8 * found["checkpoint-12"]  # its indentation may change


def test_all_damaged_is_an_error_and_deletes_nothing(out):
    for name in checkpoints(out):
        truncated(out / name / "optimizer.safetensors")
    before = tree(out)
    with pytest.raises(MissingFileError, match="no valid checkpoint") as error:
        resumed(out)
    assert "checkpoint-8, checkpoint-12" in str(error.value)
    assert tree(out) == before


@pytest.mark.parametrize("name", [n for n in FILES if "token" not in n])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_named_checkpoint_that_is_damaged_is_an_error_that_names_it(out, damage, name):
    damage(out / "checkpoint-12" / name)
    before = tree(out)
    with pytest.raises(DataError, match="checkpoint-12"):
        resumed(out, resume_from_checkpoint=str(out / "checkpoint-12"))
    assert tree(out) == before


def test_a_named_checkpoint_that_is_not_there_is_said_so(out):
    with pytest.raises((DataError, MissingFileError)) as error:
        resumed(out, resume_from_checkpoint=str(out / "checkpoint-13"))
    assert "save_only_model" not in str(error.value)


def test_the_newest_checkpoint_is_not_rotated_away_for_a_damaged_later_one(out):
    """Ended by SIGTERM between two saves, with a limit of one and a damaged checkpoint after it."""
    truncated(out / "checkpoint-12" / "state.json")
    run = checkpoint.run_id_of(out / "checkpoint-8")
    shutil.copytree(out / "checkpoint-8", out / "checkpoint-9")  # as if it was just saved
    checkpoint.remove_oldest(out / "checkpoint-9", run, 1)
    assert checkpoints(out) == ["checkpoint-9"]


def test_a_run_that_was_moved_or_is_named_otherwise_keeps_its_best_model(out, monkeypatch):
    moved = out.with_name("moved")
    out.rename(moved)
    monkeypatch.chdir(moved.parent)
    assert resumed(Path("moved")) == undisturbed()
    assert len(list(moved.glob("best-*"))) == 1


# --- no space left -------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_was_saved(child, tmp_path):
    out = tmp_path / "out"
    one = child(limit=[9, 100_000])  # room for the weights, not for the moments
    assert one.wait() == 1
    said = one.said()
    assert "TrainingError: " in said and "checkpoint-12 cannot be written" in said, said
    assert "bytes free" in said and "intact" in said, said
    assert "File too large" in said or "FileTooLarge" in said, said
    assert checkpoints(out) == ["checkpoint-4", "checkpoint-8"] and left_over(out) == []
    for name in checkpoints(out):
        files.verify_folder(out / name)
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert child(resume_from_checkpoint="true").finish() == undisturbed()
    assert left_over(out) == []


def test_little_space_is_refused_before_anything_is_written(out, monkeypatch):
    before = tree(out)
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(TrainingError, match="no space for"):
        resumed(out)
    after = tree(out)
    assert {k: v for k, v in after.items() if "/" in k} == {
        k: v for k, v in before.items() if "/" in k
    }
    monkeypatch.undo()
    assert resumed(out) == undisturbed()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("NOT RUN: a really full disk needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("checked", [True, False], ids=["said before", "found out while writing"])
def test_a_disk_that_is_really_full(child, small_disk, killed_at_14, checked):
    """`run.json` cannot be written either."""
    out = small_disk / "out"
    shutil.copytree(killed_at_14, out)
    before = tree(out)
    settings = {"resume_from_checkpoint": "true", "load_best_model_at_end": False}
    one = child(out, wait_at=15, no_check=not checked, **settings)
    assert one.until("wait")
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    Path(f"{out}.go").touch()
    assert one.wait() == 1
    filler.unlink()
    said = one.said()
    assert "TrainingError: " in said.splitlines()[-4] + said, said
    after = tree(out)
    assert all(after[k] == v for k, v in before.items() if k.startswith("checkpoint-"))
    assert left_over(out) == [] and checkpoints(out) == ["checkpoint-8", "checkpoint-12"]
    whole = child(out, resume_from_checkpoint="true").finish()
    assert whole == undisturbed()


# --- SIGTERM -------------------------------------------------------------------------------------


def test_a_terminated_run_saves_and_goes_on(child, tmp_path):
    out = tmp_path / "out"
    one = child(wait_at=7)
    assert one.until("wait")
    one.signal(signal.SIGTERM)
    time.sleep(0.05)
    Path(f"{out}.go").touch()
    assert one.wait() == 143, one.said()
    assert checkpoints(out) == ["checkpoint-4", "checkpoint-7"]
    files.verify_folder(out / "checkpoint-7")
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert resumed(out) == undisturbed()


def test_a_second_sigterm_ends_at_once(child, tmp_path):
    one = child(wait_at=7)
    assert one.until("wait")
    one.signal(signal.SIGTERM)
    time.sleep(0.1)
    assert one.process.is_alive()
    one.signal(signal.SIGTERM)
    assert one.wait(2) == -signal.SIGTERM
    assert checkpoints(tmp_path / "out") == ["checkpoint-4"]
    assert resumed(tmp_path / "out") == undisturbed()


def test_sigterm_to_the_whole_group_with_workers(tmp_path):
    """As schedulers send it: the processes that collate must live until the step is done."""
    out = tmp_path / "out"
    settings = json.dumps({"wait_at": 7, "dataloader_num_workers": 2})
    script = str(Path(resume_child.__file__))
    process = subprocess.Popen([sys.executable, script, model(), str(out), settings])
    try:
        phase = Path(f"{out}.phase")
        end = time.monotonic() + 60
        while not (phase.is_file() and phase.read_text().startswith("wait")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.1)
        Path(f"{out}.go").touch()
        code = process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert code == 143, Path(f"{out}.err").read_text()
    assert checkpoints(out)[-1] == "checkpoint-7"
    assert resumed(out) == undisturbed()


# --- whose checkpoints ---------------------------------------------------------------------------


def test_rotation_touches_only_what_this_run_wrote(killed_at_14, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(killed_at_14 / "checkpoint-8", out / "checkpoint-7")
    (out / "checkpoint-5" / "deep").mkdir(parents=True)
    (out / "checkpoint-5" / "deep" / "file").write_text("mine")
    (out / "best-of-all").mkdir()
    (out / "notes.txt").write_text("mine")
    (out / ".checkpoint-3.tmp-somebody").mkdir()
    before = tree(out)
    one = resume_child.trainer(Path(model()), out, save_total_limit=1)
    one.train()
    assert checkpoints(out) == ["checkpoint-5", "checkpoint-7", "checkpoint-18"]
    assert {k: v for k, v in tree(out).items() if k in before} == before
    assert (out / "best-of-all").is_dir() and (out / ".checkpoint-3.tmp-somebody").is_dir()


def test_a_new_run_does_not_go_on_from_an_old_ones_checkpoints(child, out, capsys):
    one = child(out, wait_at=3)
    assert one.until("wait")
    one.kill()
    assert checkpoints(out) == ["checkpoint-8", "checkpoint-12"]
    before = tree(out)
    with pytest.raises(MissingFileError):
        resumed(out)
    said = capsys.readouterr().err
    assert said.count("an earlier run in this folder wrote it") == 2
    assert tree(out) == before
    one = child(out)  # afresh; it passes the steps of the old one's checkpoints
    assert one.finish() == undisturbed()


def test_what_a_killed_new_run_left_half_written_does_not_stay_for_ever(child, tmp_path):
    """Killed while its first checkpoint is written, it is begun afresh: with another name."""
    one = child(slow=0.05)
    while not list((tmp_path / "out").glob(".checkpoint-4.tmp-*")):
        assert one.process.is_alive()
    one.kill()
    assert child().finish() == undisturbed()
    assert left_over(tmp_path / "out") == []


# --- by hand -------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill training runs many times.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"a run takes {duration():.1f} s and {resume_child.STEPS} steps", flush=True)
    kills = []
    for number, kill in enumerate(kill_campaign(given.kills, given.seed), 1):
        print(f"{number:3} {kill}", flush=True)
        kills.append(kill)
    phases = ", ".join(f"{n} {phase}" for phase, n in Counter(k.phase for k in kills).items())
    bad = sum(not kill.same for kill in kills)
    print(
        f"{len(kills)} kills ({phases}): {bad} with another result, "
        f"{sum(bool(kill.left) for kill in kills)} left something behind"
    )
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
