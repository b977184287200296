"""Many processes in one place: a cache that eight use at once, a run folder that two want."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minift import files
from minift.data import cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX")

MEMBER = """
    import contextlib, io, os, random, sys, time, warnings
    from minift import Dataset
    from minift.cli import main

    seed, end = int(sys.argv[1]), time.time() + float(sys.argv[2])
    rng, done = random.Random(seed), 0
    warnings.simplefilter("ignore")

    def times(batch, k):
        return {"b": [k * a for a in batch["a"]], "c": [str(a) * 20 for a in batch["a"]]}

    kept = []
    while time.time() < end or not done:
        k, n = rng.randrange(6), rng.choice([40, 400])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if rng.random() < 0.3:
                which = rng.choice([["--all"], ["--max-bytes", "50kB"]])
                assert main(["cache", "prune", *which]) == 0
            ds = Dataset.from_dict({"a": list(range(n))})
            again = rng.random() < 0.9
            ds = ds.map(times, batched=True, fn_kwargs={"k": k}, load_from_cache_file=again)
        kept = [*kept[-3:], (ds, k, n)]
        for ds, k, n in kept:  # also what others have pruned meanwhile
            assert ds["b"][:] == [k * a for a in range(n)] and ds[n - 1]["c"] == str(n - 1) * 20
        done += 1
    print(done)
"""


def crowd(processes: int, seconds: float, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Let processes map, prune and read one cache; what each did, and what went wrong."""
    import tempfile

    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="minift-crowd-") as folder:
        environment = {**os.environ, "MINIFT_CACHE": folder, "OMP_NUM_THREADS": "1"}
        members = []
        for _ in range(processes):
            code = [sys.executable, "-c", textwrap.dedent(MEMBER)]
            command = [*code, str(rng.randrange(1000)), str(seconds)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            members.append(subprocess.Popen(command, env=environment, **pipes))
        for one in members:
            out, err = one.communicate(timeout=seconds + 300)
            yield f"{out.strip()} maps", [err[-2000:]] if one.returncode else []
        code = [sys.executable, "-m", "minift", "cache"]
        for action in (["prune"], ["verify"]):
            done = subprocess.run([*code, *action], env=environment, capture_output=True, text=True)
            left = [str(p) for p in Path(folder).rglob("*.tmp-*")]
            yield (
                action[0],
                [done.stdout + done.stderr + str(left)] if done.returncode or left else [],
            )


@pytest.mark.slow
def test_eight_processes_map_prune_and_read_one_cache():
    assert [problems for _, problems in crowd(8, 5, 0) if problems] == []


# --------------------------------------------------------------------- two trainings in one folder

RUN = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import tiny
    from minift import AutoTokenizer, Dataset, Trainer, TrainingArguments, hookimpl

    class Wait:
        @hookimpl
        def minift_on_step_end(self, run):
            Path(sys.argv[3] + ".go").touch()
            time.sleep(60)

    model, out = Path(sys.argv[2]), sys.argv[3]
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = tiny.make_rows(16)
    encoded = tokenizer(rows["sentence1"], rows["sentence2"])
    ds = Dataset.from_dict({**encoded, "labels": rows["label"]})
    workers, callbacks = int(sys.argv[4]), [Wait()] if sys.argv[5] == "wait" else []
    args = TrainingArguments(out, device="cpu", max_steps=2, dataloader_num_workers=workers)
    given = {"train_dataset": ds, "tokenizer": tokenizer, "callbacks": callbacks}
    Trainer(tiny.load(model), args, **given).train()
"""


def training(model: Path, out: Path, workers: int = 0, wait: bool = False) -> subprocess.Popen:
    tests = str(Path(__file__).resolve().parent.parent)
    code = [sys.executable, "-c", textwrap.dedent(RUN), tests, str(model), str(out), str(workers)]
    return subprocess.Popen(
        [*code, "wait" if wait else "go"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_training_in_a_run_folder_is_refused(tmp_path, workers):
    """With the process and the machine of the first; when that is killed, the next one trains.

    Workers that outlive their parent by seconds do not hold its lock.
    """
    import socket

    import tiny

    model, out = tiny.make_model(tmp_path / "model"), tmp_path / "out"
    first = training(model, out, workers, wait=True)
    try:
        end = time.monotonic() + 60
        while not Path(f"{out}.go").exists():
            assert first.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        second = training(model, out)
        _, said = second.communicate(timeout=60)
        assert second.returncode and "ConfigError" in said, said
        assert f"process {first.pid} on {socket.gethostname()}" in said, said
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        third = training(model, out)
        _, said = third.communicate(timeout=60)
        assert third.returncode == 0, said
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


# --------------------------------------------------------------------- what writers leave behind


def test_remains_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    script = "import os, sys; print(os.getpid())"
    dead = int(subprocess.run([sys.executable, "-c", script], capture_output=True).stdout)
    path = tmp_path / "notes.json"
    living = files.scratch_path(path)
    host = living.name.rpartition(f".{os.getpid()}.")[2]
    identity = living.name.removesuffix(f".{os.getpid()}.{host}")
    elsewhere = tmp_path / f"{identity}a.{dead}.another-machine"
    gone = tmp_path / f"{identity}b.{dead}.{host}"
    for folder in (living, elsewhere, gone):
        (folder / "inside").mkdir(parents=True)
    files.write_text(path, "{}")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, living.name, elsewhere.name}


def test_a_folder_that_a_dead_writer_had_moved_aside_comes_back(tmp_path):
    script = "import os; print(os.getpid())"
    dead = int(subprocess.run([sys.executable, "-c", script], capture_output=True).stdout)
    name = files.scratch_path(tmp_path / "saved").name.replace(f".{os.getpid()}.", f".{dead}.")
    (tmp_path / f"{name}-old").mkdir()
    (tmp_path / f"{name}-old" / "kept").write_text("kept")
    files.recover(tmp_path, "saved")
    assert (tmp_path / "saved" / "kept").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


@pytest.mark.skipif(cache.fcntl is None, reason="no locks on this system")
def test_a_first_training_that_has_not_written_its_name_yet(tmp_path):
    from minift.errors import ConfigError
    from minift.training.checkpoint import only_run

    with (tmp_path / ".lock").open("w") as file:
        cache.fcntl.flock(file, cache.fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="just begun"), only_run(tmp_path):
            pass
    with only_run(tmp_path):  # that one has ended
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()
