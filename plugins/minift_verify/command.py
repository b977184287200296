"""`minift verify-resume`: run a training twice, kill one of the two again and again, compare."""

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minift.errors import ConfigError, MissingFileError, TrainingError
from minift.files import MANIFEST, local_path
from minift_verify.comparing import differences

STARTED = "training on "  # begins the line that a run prints before its first step


help = "kill a short copy of a run again and again, and compare what it ends with"


def configure(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument("folder", metavar="RUN", help="run folder of `minift train`")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps, at most")
    parser.add_argument("--save-steps", type=int, default=5, help="steps between checkpoints")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="decides when it is killed")
    parser.add_argument("--keep", metavar="FOLDER", help="keep both runs there")


def run(args: Namespace) -> int:
    if min(args.steps, args.save_steps) < 1 or args.kills < 0:
        raise ConfigError("--steps and --save-steps must be at least 1, --kills at least 0")
    record = read_record(local_path(args.folder))
    settings = settings_of(record, args.steps, args.save_steps)
    with tempfile.TemporaryDirectory(prefix="minift-verify-") as scratch:
        folder = local_path(args.keep or scratch)
        if folder.is_dir() and list(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", do="pass a new folder as --keep")
        folder.mkdir(parents=True, exist_ok=True)
        first, second = (Copy(folder / name, settings, record) for name in "AB")
        first.start()
        first.finish()
        seconds = json.loads((first.folder / "run.json").read_text())["seconds"]
        print(f"A: {settings['max_steps']} steps in {seconds:.1f} s", flush=True)
        kill_again_and_again(second, args.kills, args.seed, seconds, settings["max_steps"])
        lines = differences(first.folder, second.folder)
    for line in lines:
        print(f"DIFFERENT: {line}")
    if not lines:
        print("EQUAL: weights, optimizer and every record, to the bit")
    return int(bool(lines))


def read_record(folder: Path) -> dict[str, Any]:
    """Return run.json of a run that `minift train` can repeat."""
    path = folder / "run.json"
    if not path.is_file():
        problem = f"{folder} is not a run folder: it has no run.json"
        raise MissingFileError(problem, do="pass the output_dir of a `minift train`")
    record = json.loads(path.read_text(encoding="utf-8"))
    if not record.get("inputs") or not record["model"]["source"]:
        what = f"{folder} was written by a script: how it made its inputs is not recorded"
        do = "make the run with `minift train`; or kill the script, and pass "
        raise ConfigError(what, do=do + "resume_from_checkpoint=True in it")
    return record


def settings_of(record: dict[str, Any], steps: int, every: int) -> dict[str, Any]:
    """Return the options of `minift train` that repeat a run, shortened to `steps`."""
    inputs, then = record["inputs"], dict(record["arguments"])
    options = {**inputs["source"], "model": record["model"]["source"]}
    options |= {"text_columns": inputs["columns"], "label_column": inputs["label"]}
    options |= {"label_names": inputs["names"], "metric": inputs["metric"]}
    options |= {"max_length": inputs["max_length"]}
    for name in ("logging_steps", "eval_steps"):
        if isinstance(then[name], float | int) and then[name] > every:
            then[name] = every
    then |= {"max_steps": min(steps, record["state"]["max_steps"]), "save_steps": every}
    if then["eval_strategy"] != "no":
        then |= {"eval_strategy": "steps", "eval_steps": then["eval_steps"] or every}
    then |= {"save_strategy": "steps", "save_only_model": False, "resume_from_checkpoint": None}
    return {**options, **then}


class Copy:
    """One of the two runs; each of its processes has a log of its own.

    Attributes:
        folder: of the run.
        command: that starts a process.
        process: the newest one.
        log: its output.
        step: of the checkpoint that it resumed from.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], record: dict[str, Any]) -> None:
        config = folder.with_suffix(".toml")
        config.write_text(as_toml({**settings, "output_dir": str(folder)}), encoding="utf-8")
        self.folder, self.step, self.starts = folder, 0, 0
        self.command = [sys.executable, "-m", "minift", *plugins_of(record["command"]), "train"]
        self.command += ["--config", str(config)]

    def start(self, *options: str) -> None:
        self.starts += 1
        self.log = self.folder.with_suffix(f".{self.starts}.log")
        command = [*self.command, *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        while self.process.poll() is None and STARTED not in self.output():
            time.sleep(0.002)

    def resume(self) -> str:
        """Start it again from its newest checkpoint, and return what it continues from."""
        saved = any(self.folder.glob(f"checkpoint-*/{MANIFEST}"))
        self.start(*(("--resume-from-checkpoint", "true") if saved else ()))
        skipped = re.findall(r"^skipped (.*)", self.output(), re.M)
        resumed = re.search(r"^going on from .*-(\d+)$", self.output(), re.M)
        self.step = int(resumed[1]) if resumed else 0
        text = f"checkpoint-{self.step}" if resumed else "the beginning"
        return text + "".join(f"; skipped {line}" for line in skipped)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def finish(self) -> None:
        if self.process.wait():
            last = "\n".join(self.output().splitlines()[-8:])
            raise TrainingError(f"the run {self.folder} ended by itself:\n{last}")


def kill_again_and_again(copy: Copy, kills: int, seed: int, seconds: float, steps: int) -> None:
    """Run a copy to its end, killing it `kills` times, and print a line for each kill.

    A's time is divided into as many parts, and each kill comes at a random moment of its part. A
    process that resumes from step s is as far as A was after s/steps of its time.
    """
    rng = random.Random(seed)
    copy.start()
    for i in range(kills):
        moment = (i + rng.random()) / kills
        time.sleep(max(0.0, moment - copy.step / steps) * seconds)
        ended = copy.process.poll() is not None
        copy.process.kill()
        if copy.process.wait() and ended:
            copy.finish()
        at = f"B {i + 1}: {'after its end' if ended else 'killed'} at {moment:.0%} of A's time"
        print(f"{at}; went on from {copy.resume()}", flush=True)
    copy.finish()


def plugins_of(command: Sequence[str]) -> list[str]:
    """Return the -p and --plugin options that a run was started with."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-p", action="append", default=[])
    parser.add_argument("--plugin", action="append", default=[])
    known, _ = parser.parse_known_args(list(command[1:]))
    return [f"-p{w}" for w in known.p] + [f"--plugin={w}" for w in known.plugin]


def as_toml(settings: dict[str, Any]) -> str:
    """Return TOML for `minift train --config`, where strings, numbers and lists are as in JSON."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict):
            value = ",".join(f"{key}={number}" for key, number in value.items())
        if value not in (None, [], ""):
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
