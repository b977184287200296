"""The whole campaign: every fault that tests/faults knows, tried often, and a table of what came.

    python tests/faults/campaign.py --seed 0        make faults SEED=0

Parts: `disk` (one call fails, or all from there on; a signal strikes in the middle of one; what is
there after the power went), `kill` (maps and runs, in one process and in two, killed at random
moments) and `crowd`. Each attempt of `disk` is a command of scenarios.py: it is disturbed, what was
committed before must still be there, the same command must then succeed with the same result, and
nothing may be left beside it.
"""

import argparse
import errno
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import disk  # noqa: E402

FAULTS = {
    "EIO": (disk.FAIL, errno.EIO),
    "EACCES": (disk.FAIL, errno.EACCES),
    "disk full": (disk.FAIL_FROM_HERE, errno.ENOSPC),
    "short write": (disk.SHORT_WRITE, 0),
    "SIGKILL": (disk.SIGNAL, signal.SIGKILL),
    "SIGTERM": (disk.SIGNAL, signal.SIGTERM),
    "SIGINT": (disk.SIGNAL, signal.SIGINT),
}
WRITES, SIGNALS = list(FAULTS)[:4], list(FAULTS)[4:]
NAMES = ["map", "map_again", "load_csv", "save_over", "save_new", "to_csv", "to_json", "to_parquet"]
NAMES += ["save_model", "save_state", "prune", "train", "download", "push"]
ONLINE = ("download", "push")
# safetensors gives its file the final name by a system call of its own, which disk.c does not see:
# what a machine comes up with after these cannot be told from a recording.
UNRECORDED = ("save_model", "save_state", "train", "push")


class Server:
    """A process of scenarios.py, and the Hub on loopback that some of its commands talk to."""

    def __init__(self, base: Path, online: bool = False) -> None:
        self.base, self.hub = base, None
        self.references: dict[str, dict[str, Any]] = {}
        environment = disk.environment()
        if online:
            self.hub, address = start_hub(base / "hub")
            environment |= {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
            environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "scenarios.py"), str(base)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(base / "server.err").open("a"),
            text=True,
        )

    def ask(self, **options: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(options) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, (self.base / "server.err").read_text()[-3000:]
        return json.loads(line)

    def reference(self, name: str) -> dict[str, Any]:
        """What comes of a command that nothing disturbs: how many calls it takes, its digest."""
        if name not in self.references:
            answer = self.ask(scenario=name, n=0, action=disk.NOTHING, number=0)
            problems = judge(answer, answer["digest"], "")
            assert not problems and answer["calls"], (name, problems, answer)
            self.references[name] = answer
        return self.references[name]

    def attempt(self, name: str, fault: str, n: int) -> list[str]:
        """Disturb a command at its n-th call; return what is wrong afterwards."""
        digest, (action, number) = self.reference(name)["digest"], FAULTS[fault]
        answer = self.ask(scenario=name, n=n, action=action, number=int(number))
        return judge(answer, digest, fault)

    def power(self, name: str, moments: int, seed: int) -> Iterator[list[str]]:
        """Let the power go at so many moments of a command, three times each."""
        digest = self.reference(name)["digest"]
        answer = self.ask(scenario=name, power=moments, seed=seed)
        yield answer["problems"]
        for one in answer["results"]:
            yield [f"{one['met']}: {problem}" for problem in judge(one, digest, "")]

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        if self.hub is not None:
            self.hub.kill()
            self.hub.wait()


def start_hub(folder: Path) -> tuple[Any, str]:
    """Serve some/model on loopback; return the process and its address."""
    make = f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); import tiny, pathlib; "
    make += f"tiny.make_model(pathlib.Path({str(folder / 'models/some/model')!r}))"
    subprocess.run([sys.executable, "-c", make], check=True)
    command = [sys.executable, "-u", str(HERE.parent / "fake_hub.py"), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"HF_ENDPOINT=(\S+)", line):
            return process, found[1]
    raise RuntimeError("the Hub on loopback does not start")


def judge(answer: dict[str, Any], digest: Any, fault: str) -> list[str]:
    """Return what is wrong with an attempt: what was lost, left, or not explained."""
    problems = [problem[-1500:] for problem in answer["problems"]]
    if not problems and answer["digest"] != digest:
        problems.append(f"another result: {answer['digest']}")
    if answer["left"]:
        problems.append(f"left behind: {answer['left'][:4]}")
    if answer.get("descriptors") and fault not in SIGNALS:  # Ctrl-C may come right after an open
        problems.append(f"{answer['descriptors']} descriptors stay open")
    if fault in ("EIO", "EACCES", "disk full") and answer.get("text"):
        text = answer["text"]
        if not answer["ours"] or "do this" not in text:
            problems.append(f"no explanation: {answer['type']} {text}")
        elif "cannot be written" in text and not re.search(r"[\d,]+ bytes.*intact", text, re.S):
            problems.append(f"it does not say how much is needed, and what is safe: {text}")
    return problems


# ------------------------------------------------------------------------------------- the parts


class Table:
    """Attempts, those that were survived, and those that were not."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.lock = threading.Lock()

    def add(self, row: str, what: str, problems: list[str]) -> None:
        with self.lock:
            self.attempts[row] += 1
            if problems:
                self.lost[row] += 1
                print(f"LOST {row}, {what}: {problems[0]}", flush=True)

    def __str__(self) -> str:
        lines = ["| what was done | attempts | survived | lost |", "|---|---|---|---|"]
        for row, n in self.attempts.items():
            lines.append(f"| {row} | {n} | {n - self.lost[row]} | {self.lost[row]} |")
        total, lost = self.attempts.total(), self.lost.total()
        return "\n".join([*lines, f"| all | {total} | {total - lost} | {lost} |"])


def disturb(table: Table, names: list[str], seed: int, thin: int) -> None:
    """Every write of every command, once for each kind of fault; signals; power loss."""
    with tempfile.TemporaryDirectory(prefix="minift-faults-") as folder:
        servers = []
        for i in range(2):
            (Path(folder) / str(i)).mkdir()
            servers.append(Server(Path(folder).resolve() / str(i), online=True))
        work: queue.Queue[tuple[str, str, int]] = queue.Queue()
        rng = random.Random(seed)
        for name in names:
            calls = servers[0].reference(name)["calls"]
            for fault in FAULTS:
                # EIO at every call; the others at every third one, from a place by chance.
                step = thin * (1 if fault == "EIO" else 3) * (3 if name == "train" else 1)
                for n in range(1 + rng.randrange(step), calls + 1, step):
                    work.put((name, fault, n))
            if name not in UNRECORDED:
                work.put((name, "power", rng.randrange(1 << 30)))

        def serve(server: Server) -> None:
            while True:
                try:
                    name, fault, n = work.get_nowait()
                except queue.Empty:
                    return
                if fault == "power":
                    for problems in server.power(name, max(1, 12 // thin), n):
                        table.add(f"power loss: {name}", f"seed {n}", problems)
                else:
                    row = "interrupted" if fault in SIGNALS else "disk faults"
                    found = server.attempt(name, fault, n)
                    table.add(f"{row}: {name}", f"{fault} at call {n}", found)

        try:
            together([lambda one=server: serve(one) for server in servers])
        finally:
            for server in servers:
                server.end()


def together(calls: list[Callable[[], None]]) -> None:
    """Run functions in threads; raise the first error."""
    errors: list[BaseException] = []

    def run(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def kill(table: Table, seed: int, kills: int) -> None:
    """Maps and training runs at random moments, in one process and in two."""
    import test_map_faults
    import test_resume_faults

    for one in test_map_faults.kill_campaign(kills, seed):
        bad = not one.same or one.again > one.allowed or one.left
        row = f"killed at random: map, {'one process' if one.num_proc is None else 'two processes'}"
        table.add(row, str(one), [str(one)] if bad else [])
    for run in test_resume_faults.kill_campaign(kills, seed):
        bad = not run.same or run.left
        table.add("killed at random: training", str(run), [str(run)] if bad else [])


def crowd(table: Table, seed: int, seconds: float) -> None:
    """Eight processes map, prune and read one cache."""
    import test_crowd_faults

    for what, problems in test_crowd_faults.crowd(8, seconds, seed):
        table.add("crowded: eight processes in one cache", what, problems)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=NAMES, help="commands of scenarios.py")
    parser.add_argument("--parts", nargs="*", default=["disk", "kill", "crowd"])
    parser.add_argument("--thin", type=int, default=1, help="try every n-th place alone")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60, help="of the crowd")
    given = parser.parse_args()
    if disk.library() is None:
        print("the campaign needs a C compiler (cc) and POSIX")
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table, started = Table(), time.monotonic()
    if "disk" in given.parts:
        disturb(table, given.only, given.seed, given.thin)
    if "kill" in given.parts:
        kill(table, given.seed, given.kills)
    if "crowd" in given.parts:
        crowd(table, given.seed, given.seconds)
    print(f"{table}\n\nseed {given.seed}, {(time.monotonic() - started) / 60:.1f} minutes")
    return min(table.lost.total(), 1)


if __name__ == "__main__":
    sys.exit(main())
