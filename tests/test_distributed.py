"""Several processes: the same rows, the same steps, as one; and what happens when one dies.

Real processes, started by torchrun, on the CPU.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tiny import make_model, make_rows, write_csv

from minift import notebook_launcher
from minift.errors import ArgumentError, DeviceError, TrainingError

CHILD = Path(__file__).with_name("distributed_child.py")
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
# Loops in orders that `orders.py` can carry out; where batches are cut, each process has as many.
PROGRAMS = [
    {"way": way, "place": place, "leave": leave, "rows": rows, "evaluated": 9}
    for way in ("plain", "list", "ahead", "slices")
    for rows in ((24,) if way == "slices" else (24, 25, 29))
    for place in ("top", "forward", "backward", "end")
    for leave in (False, True)
]
PROGRAMS += [{"rows": 29, "group": 1, "by_logits": True}, {"rows": 29, "stop": 2, "way": "ahead"}]
STARTED: dict = {}  # the processes of these tests, and what they said

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Without dropout, whose masks depend on how rows are shared."""
    return make_model(tmp_path_factory.mktemp("model"), **QUIET)


def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(words, launcher=("--standalone", "--nproc-per-node", "2"), **options):
    command = [*TORCHRUN, *launcher, *words] if launcher else [sys.executable, *words]
    with tempfile.TemporaryFile("w+") as output:  # a pipe that nobody reads would stop them
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        STARTED[process] = os.fdopen(os.dup(output.fileno()))
    return process


def said_by(process) -> str:
    STARTED[process].seek(0)
    return STARTED[process].read()


def finish(*processes, code=0) -> str:
    """What they have said, when all have ended with this code."""
    codes = []
    with contextlib.suppress(subprocess.TimeoutExpired):
        codes = [process.wait(timeout=120) for process in processes]
    said = "\n".join(map(said_by, processes))
    assert set(codes) == {code}, f"{codes or 'they do not end'}\n{said}"
    return said


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left():
    yield
    for process, output in STARTED.items():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.close()
    STARTED.clear()


def results(folder: Path, part: str) -> list[dict]:
    """What each process wrote, in the order of their numbers."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{part}-*.json"))]


def child(folder: Path, model: Path, part: str, **settings) -> list:
    folder.mkdir()
    return [CHILD, part, model, folder, json.dumps(settings)]


@pytest.fixture(scope="module")
def one(model, tmp_path_factory):
    """One process, 16 rows at once."""
    folder = tmp_path_factory.mktemp("one") / "out"
    settings = {"train": {"per_device_train_batch_size": 16}, "by_hand": {"size": 16}}
    settings["by_order"] = {"programs": PROGRAMS, "scale": 2}
    finish(start(child(folder, model, "train+by_hand+by_order", **settings), launcher=()))
    return {part: results(folder, part)[0] for part in ("train", "by_hand", "by_order")}


@pytest.fixture(scope="module")
def two(model, tmp_path_factory):
    """Two processes, 8 rows in each; and how often they called the function of a map."""
    folder = tmp_path_factory.mktemp("two") / "out"
    calls = folder.parent / "calls"
    calls.touch()
    environment = {**os.environ, "TEST_CALLS": str(calls), "MINIFT_CACHE": str(folder.parent)}
    words = child(folder, model, "train+by_hand+by_order", by_order={"programs": PROGRAMS})
    said = finish(start(words, env=environment))
    found = {part: results(folder, part) for part in ("train", "by_hand", "by_order")}
    return {**found, "calls": len(calls.read_text().splitlines()), "said": said}


@pytest.fixture(autouse=True, scope="module")
def counted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_CALLS", str(tmp_path_factory.mktemp("calls") / "calls"))
        yield


# ---------------------------------------------------------------------------------- the same steps


def test_each_update_has_the_rows_of_one_process_in_the_same_order(one, two):
    """Pain: a sampler that pads the last batch trains on some rows twice."""
    first, second = (found["rows"] for found in two["train"])
    assert [a + b for a, b in zip(first, second, strict=True)] == one["train"]["rows"]
    epoch = [row for update in one["train"]["rows"][:4] for row in update]
    assert sorted(epoch) == list(range(49))
    assert second[3] == []  # the epoch's last row is the other's


def test_losses_and_gradients_are_those_of_one_process(one, two):
    """Pain (transformers#47688): loss and gradient grow with the number of processes."""
    assert [found["ran"] for found in two["train"]] == [2, 2]
    mine, (theirs, again) = one["train"], two["train"]
    assert len(mine["losses"]) == 20
    assert theirs["losses"][0] == pytest.approx(mine["losses"][0], rel=1e-6)
    assert theirs["norms"][0] == pytest.approx(mine["norms"][0], rel=1e-6)
    assert theirs["losses"] == pytest.approx(mine["losses"], abs=1e-5)
    assert again["losses"] == theirs["losses"] and again["weights"] == theirs["weights"]


def test_evaluation_gives_every_row_once_and_in_order(one, two):
    for found in two["train"]:
        assert found["labels"] == one["train"]["labels"]
        assert found["logits"] == [pytest.approx(row, abs=1e-4) for row in one["train"]["logits"]]
        assert found["metrics"] == pytest.approx(one["train"]["metrics"], abs=1e-4)


def test_a_loop_written_by_hand_ends_with_the_trainers_weights(one, two):
    assert one["by_hand"]["weights"] == one["train"]["weights"]
    for by_hand, train in zip(two["by_hand"], two["train"], strict=True):
        assert by_hand["processes"] == 2
        assert by_hand["weights"] == train["weights"]


def test_gather_for_metrics_gives_every_row_once_and_in_order(one, two):
    """21 rows in batches of 2: at the end one process has a row and the other none."""
    for found in two["by_hand"]:
        assert found["labels"] == one["by_hand"]["labels"] == one["train"]["labels"]
        assert found["logits"] == [pytest.approx(x, abs=1e-4) for x in one["by_hand"]["logits"]]


def test_a_loop_in_any_order_has_the_updates_of_one_process(one, two):
    """Pain (accelerate#960): an evaluation in between multiplied a process's gradient by 0."""
    for i, (program, alone) in enumerate(zip(PROGRAMS, one["by_order"]["found"], strict=True)):
        ours = [found["found"][i] for found in two["by_order"]]
        for found in ours:
            assert found["updates"] == alone["updates"], program
            for got, want in zip(found["weights"], alone["weights"], strict=True):
                assert got == pytest.approx(want, abs=1e-5), program
        assert ours[0]["weights"] == ours[1]["weights"], program


def test_an_evaluation_anywhere_gathers_every_row_once(two):
    for i, program in enumerate(PROGRAMS):
        for found in (found["found"][i] for found in two["by_order"]):
            rows = list(range(6 if program.get("leave") else 9))
            assert all(seen == rows for seen in found["evaluated"]), program


def test_a_scheduler_ends_at_zero_whether_prepared_or_not(one, two):
    """Pain: a length that was taken before `prepare` is one for all processes together."""
    assert [found["rates"] for found in (one["by_order"], *two["by_order"])] == [[0.0, 0.0]] * 3


@pytest.mark.slow
def test_a_trainer_that_is_extended_trains_as_in_one_process(model, tmp_path):
    """Its loss, its draws and what it saves: nothing depends on the number of processes."""
    for name, settings, launcher in (
        ("one", {"size": 16}, {"launcher": ()}),
        ("two", {}, {}),
        ("sharded", {"sharded": True}, {}),
    ):
        finish(start(child(tmp_path / name, model, "extended", extended=settings), **launcher))
    (one,), two = (results(tmp_path / name, "extended") for name in ("one", "two"))
    for found in two:
        assert found["losses"][0] == pytest.approx(one["losses"][0], rel=1e-6)
        assert found["norms"][0] == pytest.approx(one["norms"][0], rel=1e-6)
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-5)
        assert found["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-4)
        assert found["weights"] == two[0]["weights"]
        assert found["notes"] == one["notes"] == ["3", "6", "6"]
    for found in results(tmp_path / "sharded", "extended"):
        assert "the processes give different rows" in found["error"]


def test_one_process_maps_while_the_other_waits(two):
    assert two["calls"] == 2  # the training rows, the rows for evaluation


def test_one_process_speaks(two):
    assert two["said"].count("training on cpu") == 1
    assert "in each of 2 processes" in two["said"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_sums_in_shared_memory_are_those_in_the_order_of_the_processes(count, tmp_path):
    """To the bit, of any number of vectors; double precision goes through torch.distributed."""
    words = child(tmp_path / "out", tmp_path, "sums")
    finish(start(words, ("--standalone", "--nproc-per-node", count)))
    found = results(tmp_path / "out", "sums")
    assert [one["right"] for one in found] == [[True] * 30] * count
    assert [one["shared"] for one in found] == [True] * count
    assert [one["in the way"] for one in found] == [[]] * count  # nothing is held, or has a name


@pytest.mark.slow
def test_where_memory_cannot_be_shared_all_take_the_other_way(tmp_path):
    said = finish(start(child(tmp_path / "out", tmp_path, "sums", sums={"refuse": True})))
    assert "process 1 cannot share memory: not allowed" in said
    found = results(tmp_path / "out", "sums")
    assert [one["right"] for one in found] == [[True] * 30] * 2
    assert [one["shared"] for one in found] == [False] * 2


@pytest.mark.slow
def test_a_process_that_has_done_its_work_ends_well(tmp_path):
    """Pain (pytorch#179291): Python ends before torch's threads do, and the process aborts."""
    for attempt in range(3):
        finish(start(child(tmp_path / str(attempt), tmp_path, "leave_early")))


@pytest.mark.slow
def test_two_agents_are_one_world(model, two, tmp_path):
    """As on two machines: each agent starts one process, and they meet at an address."""
    words = child(tmp_path / "out", model, "train")
    meeting = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d")
    for attempt in range(2):  # torch's agents now and then wait for each other at the end
        place = ("--rdzv-id", f"test{attempt}", "--rdzv-endpoint", f"127.0.0.1:{port()}")
        place = (*meeting, *place, "--local-addr", "127.0.0.1", "--rdzv-conf")
        agents = [start(words, (*place, f"is_host={host}")) for host in ("true", "false")]
        with contextlib.suppress(subprocess.TimeoutExpired):
            for agent in agents:
                agent.wait(timeout=60)
            break
        assert len(results(tmp_path / "out", "train")) == 2, said_by(agents[0])
    finish(*agents)
    for found, expected in zip(results(tmp_path / "out", "train"), two["train"], strict=True):
        assert found == expected


# --------------------------------------------------------------------------- when one of them dies


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A csv file, and a model with dropout."""
    folder = tmp_path_factory.mktemp("files")
    make_model(folder / "model", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    make_model(folder / "quiet", **QUIET)
    write_csv(folder / "train.csv", make_rows(64))
    write_csv(folder / "dev.csv", make_rows(20, 1))
    slow = "import time\nimport minift\n\n@minift.hookimpl\ndef minift_on_step_end(run):\n"
    (folder / "slow.py").write_text(slow + "    time.sleep(0.05)\n")
    return folder


def command(files: Path, folder: Path, *more, model: str = "model") -> list:
    words = ["-m", "minift", "--plugin", files / "slow.py", "train", "--model", files / model]
    words += ["--train-file", files / "train.csv", "--validation-file", files / "dev.csv"]
    words += ["--output-dir", folder, "--per-device-train-batch-size", "4", "--max-steps", "24"]
    words += ["--logging-steps", "1", "--save-steps", "3", "--save-total-limit", "2"]
    words += ["--eval-strategy", "steps", "--eval-steps", "4", "--device", "cpu"]
    return [*words, "--learning-rate", "1e-3", *more]


def step_of(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0


def until_step(process, folder: Path, step: int) -> None:
    end = time.monotonic() + 120
    while step_of(folder) < step:
        assert process.poll() is None and time.monotonic() < end, said_by(process)
        time.sleep(0.01)


def process_with(rank: int, folder: Path) -> int:
    """The pid of the process with this rank that trains into a folder."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            told = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in words and f"RANK={rank}".encode() in told:
            return int(path.name)
    raise AssertionError(f"no process has rank {rank}")


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def history(folder: Path) -> list[dict]:
    """The losses that were logged, in the order of the steps."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: r[k] for k in ("step", "loss", "grad_norm")} for r in records if "grad_norm" in r]


@pytest.fixture(scope="module")
def undisturbed(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    said = finish(start(command(files, folder)))
    assert said.count("saved to") == 1
    return folder


@pytest.mark.slow
def test_torchrun_starts_them_again_and_they_end_with_the_same_weights(
    files, undisturbed, tmp_path
):
    folder = tmp_path / "out"
    again = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    process = start(command(files, folder), launcher=again)
    until_step(process, folder, 8)
    os.kill(process_with(1, folder), signal.SIGKILL)
    said = finish(process)
    assert "going on from" in said
    assert weights(folder) == weights(undisturbed)
    assert history(folder) == history(undisturbed)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_with_its_reason(files, tmp_path):
    """Not a hang: the others see the broken connection."""
    folder = tmp_path / "out"
    process = start(command(files, folder))
    until_step(process, folder, 5)
    os.kill(process_with(1, folder), signal.SIGKILL)
    said = finish(process, code=1)
    assert "process 0 of 2 lost the others" in said
    assert "SIGKILL" in said or "exitcode  : -9" in said
    status = json.loads((folder / "run.json").read_text())
    assert status["status"] == "failed" and "lost the others" in status["error"]


@pytest.mark.slow
def test_ctrl_c_saves_in_all_processes(files, tmp_path):
    """torchrun hands it on to them."""
    folder = tmp_path / "out"
    process = start(command(files, folder, "--save-steps", "24"))
    until_step(process, folder, 7)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=120)
    (saved,) = folder.glob("checkpoint-*")
    assert f"it goes on from {saved.name} with" in said_by(process)
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
def test_sigterm_saves_and_one_process_goes_on(files, tmp_path):
    """Another number of processes continues the same order: the losses are those of one alone."""
    folder, alone, exact = tmp_path / "out", tmp_path / "alone", ["--precision", "fp32"]
    more = [*exact, "--gradient-accumulation-steps", "2"]
    other = start(command(files, alone, *more, model="quiet"), launcher=())
    process = start(command(files, folder, *exact, model="quiet"))
    until_step(process, folder, 7)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    saved = max(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    assert saved >= 7
    again = ["--resume-from-checkpoint", "true"]
    refused = start(command(files, folder, *exact, *again, model="quiet"), launcher=())
    assert "rows in an update=4" in finish(refused, code=2)
    said = finish(start(command(files, folder, *more, *again, model="quiet"), launcher=()))
    assert "saved by 2 processes, and now there are 1" in said
    state = json.loads((folder / "run.json").read_text())["state"]
    assert state["global_step"] == 24
    finish(other)
    ours, theirs = history(folder), history(alone)
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(1, 25))
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], abs=1e-4)


# --------------------------------------------------------------------------------- from a notebook


SCRIPT = """
import sys
import minift

def work(folder, fail_at):
    import os
    if os.environ["RANK"] == fail_at:
        os.kill(os.getpid(), 9) if fail_at == "1" else 1 / 0
    accelerator = minift.Accelerator(device="cpu")
    import torch
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    ranks = accelerator.gather(torch.tensor([accelerator.process_index]))
    open(f"{folder}/{accelerator.process_index}", "w").write(str(ranks.tolist()))
    accelerator.wait_for_everyone()

minift.notebook_launcher(work, (sys.argv[1], sys.argv[2]), num_processes=2)
print("done")
"""


def launch(folder: Path, fail_at: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT, str(folder), fail_at]  # no module holds `work`
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_notebook_launcher_starts_processes_that_meet(tmp_path):
    done = launch(tmp_path)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr
    assert [(tmp_path / str(i)).read_text() for i in range(2)] == ["[0, 1]", "[0, 1]"]


@pytest.mark.parametrize(
    ("fail_at", "said"),
    [("1", "process 1 died"), ("0", "division by zero")],
    ids=["killed", "error"],
)
def test_notebook_launcher_ends_all_when_one_fails(tmp_path, fail_at, said):
    done = launch(tmp_path, fail_at)
    assert done.returncode == 1 and said in done.stderr


TRAINING = """
import sys
import minift

def work(folder):
    import time
    from pathlib import Path
    from minift import hookimpl
    from minift.testing import tiny

    class Slow:
        @hookimpl
        def minift_on_step_end(self, run):
            time.sleep(0.1)

    settings = {"max_steps": 10_000, "save_steps": 5_000, "logging_steps": 1}
    tiny.trainer("cpu", Path(folder), callbacks=[Slow()], save_strategy="steps", **settings).train()

minift.notebook_launcher(work, (sys.argv[1],), num_processes=2)
"""


@pytest.mark.slow
def test_ctrl_c_in_a_notebook_lets_its_processes_save(tmp_path):
    process = start(["-c", TRAINING, tmp_path], launcher=None)
    until_step(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    (saved,) = tmp_path.glob("checkpoint-*")
    said = said_by(process)
    assert f"it goes on from {saved.name} with" in said and "KeyboardInterrupt" in said


def test_notebook_launcher_refuses_what_cannot_work(monkeypatch):
    from minift import Device

    with pytest.raises(ArgumentError, match="at least 1"):
        notebook_launcher(print, num_processes=0)
    monkeypatch.setattr(Device, "initialized", "a device")
    with pytest.raises(DeviceError, match="has used a device already"):
        notebook_launcher(print, num_processes=2)
    said = []
    notebook_launcher(said.append, (1,), num_processes=1)
    assert said == [1]


def test_an_error_in_a_process_that_can_be_raised_here_is(tmp_path):
    with pytest.raises(TrainingError, match="not a step"):
        notebook_launcher(fail, num_processes=2)


def fail():
    raise TrainingError("not a step")
