"""What minift writes, as commands that a disk can spoil; run by a process with disk.c, see disk.py.

    LD_PRELOAD=disk.so python scenarios.py FOLDER

reads a line of JSON for each attempt and answers with one. The process has imported all that the
commands need and forks for each attempt, so that one takes milliseconds.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import disk  # noqa: E402
import tiny  # noqa: E402

ROWS = 40
SCENARIOS: dict[str, "Scenario"] = {}


@dataclass(frozen=True)
class Scenario:
    """A command that writes.

    Attributes:
        prepare: makes a folder with what was committed before; called once.
        act: the command; called in a folder that was prepared, and again after a fault.
        before: raises unless what was committed before the command is there, whole, or replaced by
            what the command commits.
        after: raises unless what the command commits is there, whole; returns a digest of it.
        left: what may be in the folder after the command, a pattern of whole names.
        reading: faults strike where files are opened to be read, too.
    """

    prepare: Callable[[Path], None]
    act: Callable[[Path], Any]
    before: Callable[[Path], None]
    after: Callable[[Path], Any]
    left: str
    reading: bool = False


def scenario(left: str, reading: bool = False) -> Callable[[type], type]:
    def add(made: Any) -> type:
        SCENARIOS[made.__name__] = Scenario(
            made.prepare, made.act, made.before, made.after, left, reading
        )
        return made

    return add


def rows_of(dataset: Any) -> str:
    return hashlib.sha256(repr(dataset.to_dict()).encode()).hexdigest()


def make_dataset(seed: int = 0):
    from minift import Dataset

    return Dataset.from_dict(
        {"i": list(range(ROWS)), "text": [f"{seed} row {i}" for i in range(ROWS)]}
    )


def twice(batch):
    return {"twice": [2 * i for i in batch["i"]], "upper": [t.upper() for t in batch["text"]]}


def thrice(batch):
    return {"thrice": [3 * i for i in batch["i"]]}


def use_cache(folder: Path) -> None:
    os.environ["MINIFT_CACHE"] = str(folder / "cache")


def check_cache(folder: Path) -> None:
    """Whatever has a manifest in the cache is as the manifest says."""
    from minift.data import storage

    for manifest in (folder / "cache").glob("[ms]*/[!.]*/manifest.json"):
        if not manifest.parent.name.endswith(".work"):
            storage.open_folder(manifest.parent, verify=True)


CACHED = r"cache(/(map|src)(/[0-9a-f]{32}(/(manifest\.json|data-\d+\.arrow))?)?|/locks(/\w+)?)?"


@scenario(CACHED)
class map:
    """One result is in the cache, another one is computed."""

    @staticmethod
    def prepare(folder):
        use_cache(folder)
        make_dataset().map(thrice, batched=True, batch_size=10)

    @staticmethod
    def act(folder):
        use_cache(folder)
        make_dataset().map(twice, batched=True, batch_size=10)

    @staticmethod
    def before(folder):
        use_cache(folder)
        check_cache(folder)
        made = make_dataset().map(thrice, batched=True, batch_size=10)
        assert made["thrice"][:] == [3 * i for i in range(ROWS)]

    @staticmethod
    def after(folder):
        use_cache(folder)
        result = make_dataset().map(twice, batched=True, batch_size=10)
        found = [path.parent.name for path in (folder / "cache/map").glob("*/manifest.json")]
        assert (
            len([name for name in found if "." not in name]) == 2
        )  # others are remains, or replaced
        return rows_of(result)


@scenario(CACHED)
class map_again(map):
    """The result of a map is computed anew, and replaces the one in the cache."""

    @staticmethod
    def prepare(folder):
        map.prepare(folder)
        map.act(folder)

    @staticmethod
    def act(folder):
        use_cache(folder)
        make_dataset().map(twice, batched=True, batch_size=10, load_from_cache_file=False)


@scenario(CACHED + r"|[ab]\.csv")
class load_csv:
    """A csv file is parsed into the cache, in which another one is."""

    @staticmethod
    def prepare(folder):
        for name in "ab":
            lines = [f'{name} {i},"text, {i}"' for i in range(ROWS)]
            (folder / f"{name}.csv").write_text("\n".join(["name,text", *lines, ""]))
        load_csv.load(folder, "a")

    @staticmethod
    def load(folder, name):
        import minift_files.parsing

        from minift import load_dataset

        use_cache(folder)
        minift_files.parsing.CACHED_BYTES = 1
        return load_dataset("csv", data_files=str(folder / f"{name}.csv"), split="train")

    @staticmethod
    def act(folder):
        loaded = load_csv.load(folder, "b")
        assert loaded["name"][3] == "b 3" and len(loaded) == ROWS

    @staticmethod
    def before(folder):
        check_cache(folder)
        assert load_csv.load(folder, "a")["name"][3] == "a 3"

    @staticmethod
    def after(folder):
        check_cache(folder)
        result = rows_of(load_csv.load(folder, "b"))
        assert len(list((folder / "cache/src").glob("*/manifest.json"))) == 2
        return result


DISK = r"saved(/(dataset_dict\.json|\w+(/(state|dataset_info)\.json|/data-\S+\.arrow)?))?"


@scenario(DISK)
class save_over:
    """A saved dataset is replaced by another one."""

    @staticmethod
    def splits(seed):
        from minift import DatasetDict

        return DatasetDict(train=make_dataset(seed), test=make_dataset(seed + 10))

    @staticmethod
    def prepare(folder):
        save_over.splits(1).save_to_disk(folder / "saved")

    @staticmethod
    def act(folder):
        save_over.splits(2).save_to_disk(folder / "saved", num_shards={"train": 2}, overwrite=True)

    @staticmethod
    def load(folder):
        from minift import load_from_disk

        found = load_from_disk(folder / "saved", verify=True)
        return [rows_of(found[name]) for name in ("train", "test")]

    @staticmethod
    def before(folder):
        both = [save_over.splits(seed) for seed in (1, 2)]
        assert save_over.load(folder) in [[rows_of(s["train"]), rows_of(s["test"])] for s in both]

    @staticmethod
    def after(folder):
        return save_over.load(folder)


@scenario(DISK)
class save_new(save_over):
    """A dataset is saved where none was."""

    @staticmethod
    def prepare(folder):
        pass

    @staticmethod
    def act(folder):
        if not (folder / "saved").exists():  # else it is refused, and whole: see `before`
            save_over.splits(2).save_to_disk(folder / "saved")

    @staticmethod
    def before(folder):
        if (folder / "saved").exists():
            save_over.load(folder)


def exported(suffix: str) -> type:
    class export:
        """A file of rows is replaced by another one."""

        @staticmethod
        def write(folder, seed):
            dataset = make_dataset(seed)
            writer = {"csv": dataset.to_csv, "json": dataset.to_json, "parquet": dataset.to_parquet}
            writer[suffix](folder / f"rows.{suffix}")

        @staticmethod
        def prepare(folder):
            export.write(folder, 1)

        @staticmethod
        def act(folder):
            export.write(folder, 2)

        @staticmethod
        def read(folder):
            from minift import load_dataset

            use_cache(folder.parent)
            path = str(folder / f"rows.{suffix}")
            return rows_of(load_dataset(suffix, data_files=path, split="train"))

        @staticmethod
        def before(folder):
            assert export.read(folder) in [rows_of(make_dataset(seed)) for seed in (1, 2)]

        @staticmethod
        def after(folder):
            return export.read(folder)

    export.__name__ = f"to_{suffix}"
    return export


for ending in ("csv", "json", "parquet"):
    scenario(rf"rows\.{ending}")(exported(ending))


# --------------------------------------------------------------------------------------- training

WEIGHTS = r"config\.json|model\.safetensors|tokenizer\.json|tokenizer_config\.json"
SAVED = rf"({WEIGHTS}|optimizer\.safetensors|state\.json|manifest\.json)"
RUN = rf"run\.json|metrics\.jsonl|(checkpoint|best)-\d+(/{SAVED})?|{WEIGHTS}"
RUN = rf"cache|model(/.*)?|run(/({RUN}))?"


@scenario(RUN)
class train:
    """A run that was killed after its first checkpoint goes on, saves two more and its best."""

    @staticmethod
    def trainer(folder):
        from minift import AutoTokenizer, Dataset, Trainer, TrainingArguments

        use_cache(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        rows = tiny.make_rows(12, 0)
        encoded = tokenizer(rows["sentence1"], rows["sentence2"], truncation=True)
        dataset = Dataset.from_dict({**encoded, "labels": rows["label"]})
        settings: dict[str, Any] = {"max_steps": 6, "per_device_train_batch_size": 4}
        settings |= {"save_steps": 2, "eval_steps": 2, "eval_strategy": "steps", "device": "cpu"}
        settings |= {"logging_steps": 2, "save_total_limit": 1, "load_best_model_at_end": True}
        settings |= {"disable_tqdm": True, "learning_rate": 4e-3}
        return Trainer(
            tiny.load(folder / "model", seed=1),
            TrainingArguments(str(folder / "run"), **settings),
            train_dataset=dataset,
            eval_dataset=dataset,
            tokenizer=tokenizer,
        )

    @staticmethod
    def prepare(folder):
        from minift import hookimpl
        from minift.plugins import manager_for_run

        tiny.make_model(folder / "model")
        one, kept = train.trainer(folder), folder / "kept"

        class Copy:
            @hookimpl
            def minift_on_save(self, run):
                if run.state.global_step == 2:
                    shutil.copytree(run.folder, kept)

        one.run.manager = manager_for_run(one.run.manager, [Copy()])
        one.train()
        shutil.rmtree(folder / "run")
        os.rename(kept, folder / "run")

    @staticmethod
    def act(folder):
        one = train.trainer(folder)
        one.train(resume_from_checkpoint=True)
        return one

    @staticmethod
    def before(folder):
        from minift import files

        found = []
        for manifest in (folder / "run").glob("[!.]*/manifest.json"):
            with contextlib.suppress(FileNotFoundError):
                files.verify_folder(manifest.parent)
            found.append(manifest.parent.name)
        assert any(name.startswith("checkpoint-") for name in found), found
        from minift.training import checkpoint

        newest = checkpoint.list_checkpoints(folder / "run")[-1]
        state = checkpoint.read_state(newest)["state"]
        assert Path(state["best_model_checkpoint"]).name in found, (found, state)

    @staticmethod
    def after(folder):
        train.before(folder)
        one = train.trainer(folder)
        one.train(resume_from_checkpoint=True)
        assert one.state.global_step == 6
        digest = hashlib.sha256()
        for name, tensor in one.model.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        lines = (folder / "run/metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert json.loads((folder / "run/run.json").read_text())["status"] == "finished"
        return digest.hexdigest(), sorted(set(steps))


@scenario(rf"cache|(first|second|saved)(/{SAVED})?")
class save_model:
    """A model and its tokenizer are saved over others."""

    @staticmethod
    def prepare(folder):
        tiny.make_model(folder / "first")
        tiny.make_model(folder / "second", hidden_size=16)
        tiny.make_model(folder / "saved")
        save_model.save(folder, "first")

    @staticmethod
    def save(folder, name):
        from minift import AutoTokenizer
        from minift.device import Device
        from minift.training.serialization import save_model as save

        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        save(tiny.load(folder / name), folder / "saved", Device(), tokenizer)

    @staticmethod
    def act(folder):
        save_model.save(folder, "second")

    @staticmethod
    def load(folder, name):
        from minift import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        model = tiny.load(folder / name)
        digest = hashlib.sha256(repr(tokenizer("w1 w2")["input_ids"]).encode())
        for key, tensor in model.state_dict().items():
            digest.update(key.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    @staticmethod
    def before(folder):
        from minift.errors import MiniftError

        known = [save_model.load(folder, name) for name in ("first", "second")]
        try:
            assert save_model.load(folder, "saved") in known
        except MiniftError as error:  # struck between two of its files: refused, not mixed
            assert "config.json" in str(error), error

    @staticmethod
    def after(folder):
        assert save_model.load(folder, "saved") == save_model.load(folder, "second")
        return save_model.load(folder, "saved")


@scenario(rf"cache|model(/{SAVED})?|state(/(\w+\.(safetensors|json)))?")
class save_state:
    """The state of an Accelerator is saved over an earlier one."""

    @staticmethod
    def accelerator(folder):
        import torch

        from minift import Accelerator

        accelerator = Accelerator(cpu=True)
        model = tiny.load(folder / "model")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return accelerator, *accelerator.prepare(model, optimizer)

    @staticmethod
    def prepare(folder):
        tiny.make_model(folder / "model")
        accelerator, *_ = save_state.accelerator(folder)
        accelerator.save_state(folder / "state")

    @staticmethod
    def act(folder):
        accelerator, model, _ = save_state.accelerator(folder)
        for parameter in model.parameters():
            parameter.data.fill_(0.5)
        accelerator.save_state(folder / "state")

    @staticmethod
    def load(folder):
        accelerator, model, _ = save_state.accelerator(folder)
        accelerator.load_state(folder / "state")
        return sum(float(p.sum()) for p in model.parameters())

    @staticmethod
    def before(folder):
        save_state.load(folder)

    @staticmethod
    def after(folder):
        return save_state.load(folder)


@scenario(r"cache(/(map|src|locks)(/.*)?)?")
class prune:
    """The cache is pruned to nothing."""

    @staticmethod
    def prepare(folder):
        map_again.prepare(folder)

    @staticmethod
    def act(folder):
        from minift.cli import main

        use_cache(folder)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = main(["cache", "prune", "--all"])
        if code:
            from minift.errors import DataError

            raise DataError(said.getvalue(), do="(the command says so, and its exit code is 1)")

    @staticmethod
    def before(folder):
        check_cache(folder)

    @staticmethod
    def after(folder):
        return len(list((folder / "cache/map").iterdir()))


@scenario(r"cache|hf(/.*)?|model(/.*)?", reading=True)
class download:
    """A model is downloaded by its name from a Hub on loopback; its tokenizer is there."""

    @staticmethod
    def prepare(folder):
        download.use(folder)
        from minift import AutoTokenizer

        AutoTokenizer.from_pretrained("some/model")

    @staticmethod
    def use(folder):
        os.environ["HF_HOME"] = str(folder / "hf")
        use_cache(folder)

    @staticmethod
    def act(folder):
        download.use(folder)
        tiny.load("some/model")

    @staticmethod
    def before(folder):
        download.use(folder)
        from minift import AutoTokenizer

        assert AutoTokenizer.from_pretrained("some/model")("w1")["input_ids"]

    @staticmethod
    def after(folder):
        download.use(folder)
        return [float(p.double().sum()) for p in tiny.load("some/model").parameters()]


@scenario(r"cache|hf(/.*)?|model(/.*)?", reading=True)
class push:
    """A model is uploaded; nothing on this machine changes."""

    @staticmethod
    def prepare(folder):
        tiny.make_model(folder / "model")

    @staticmethod
    def act(folder):
        download.use(folder)
        os.environ["HF_TOKEN"] = "hf_good"
        from minift.plugins import default_manager

        publish = default_manager().hook.minift_publish
        publish(folder=folder / "model", repo="somebody/pushed", message="m", private=False)

    @staticmethod
    def before(folder):
        tiny.load(folder / "model")

    @staticmethod
    def after(folder):
        os.environ["HF_HOME"] = str(folder / "hf")
        return [float(p.double().sum()) for p in tiny.load("somebody/pushed").parameters()]


# ---------------------------------------------------------------------------------- one attempt


def forked(work: Callable[[], Any], seconds: float = 60) -> tuple[int, Any]:
    """Do something in a fork; return its exit code, or minus its signal, and its result."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reader)
            signal.alarm(int(seconds))
            os.set_inheritable(writer, False)
            result = work()
            with os.fdopen(writer, "w") as file:
                json.dump(result, file)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, json.loads(text) if text else None


def spoilt(one: Scenario, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Do the command with a fault; what came of it."""
    said, answer = io.StringIO(), {}
    with warnings.catch_warnings(record=True) as seen, contextlib.redirect_stderr(said):
        warnings.simplefilter("always")
        open_before = len(os.listdir("/proc/self/fd"))
        disk.arm(folder, options["n"], options["action"], options["number"], one.reading)
        try:
            one.act(folder)
        except BaseException as error:
            answer = {"type": type(error).__name__, "text": str(error)}
            from minift.errors import MiniftError

            answer["ours"] = isinstance(error, MiniftError)
            answer["trace"] = traceback.format_exc()
            error.__traceback__ = None
        seen_calls, met = disk.disarm()
        import gc

        gc.collect()
        # A client of the Hub keeps its connections open.
        now_open = open_before if one.reading else len(os.listdir("/proc/self/fd"))
        answer["descriptors"] = now_open - open_before
    warned = [str(one.message) for one in seen]
    return {**answer, "calls": seen_calls, "met": met, "warned": warned, "said": said.getvalue()}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def check(call: Callable[[], Any], what: str, problems: list[str]) -> Any:
    try:
        return call()
    except BaseException:
        problems.append(f"{what}: {traceback.format_exc()}")
        return None


def afterwards(one: Scenario, folder: Path) -> dict[str, Any]:
    """Check what was there, do the command again without a fault, check what is there now."""
    problems: list[str] = []
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        check(lambda: one.before(folder), "LOST what was there before", problems)
        check(lambda: one.act(folder), "the same command does not succeed", problems)
        digest = check(lambda: one.after(folder), "the result is not whole", problems)
    left = [n for n in names(folder) if not re.fullmatch(one.left, n)]
    return {"problems": problems, "digest": digest, "left": left}


def prepared(name: str, base: Path) -> Path:
    """The folder that a scenario begins with, made once."""
    folder = base / name / "before"
    if not folder.exists():
        folder.mkdir(parents=True)
        home = base / name / "work"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        code, _ = forked(lambda: silent(lambda: SCENARIOS[name].prepare(home)))
        assert code == 0, f"{name} cannot be prepared"
        folder.rmdir()
        os.rename(home, folder)
    return folder


def silent(work: Callable[[], Any]) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        work()


def fresh(name: str, base: Path) -> Path:
    """A copy of it: always of the same name, since absolute paths may be written."""
    source, work = prepared(name, base), base / name / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work, symlinks=True)
    return work


def attempt(base: Path, options: dict[str, Any]) -> dict[str, Any]:
    """One fault, and what came of it."""
    name = options["scenario"]
    one, folder = SCENARIOS[name], fresh(name, base)
    if "power" in options:
        return power_loss(one, name, base, options)
    code, first = forked(lambda: spoilt(one, folder, options))
    then_code, then = forked(lambda: afterwards(one, folder))
    if then is None:
        then = {"problems": [f"the check ended with {then_code}"], "digest": None, "left": []}
    return {"code": code, **(first or {}), **then}


def power_loss(one: Scenario, name: str, base: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Record the command, and check what is there if the power goes at many moments."""
    folder, record = base / name / "work", base / name / "record"

    def recorded() -> None:
        out = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        disk.arm(folder, record=out)
        silent(lambda: one.act(folder))
        disk.disarm()

    code, _ = forked(recorded)
    replay = disk.Replay(prepared(name, base), folder, record.read_bytes())
    count, rng = len(replay.changes), random.Random(options["seed"])
    here = base / name / "again"
    shutil.rmtree(here, ignore_errors=True)
    replay.after(count, True, here)
    problems = [] if same_tree(here, folder) else ["the recording is not what was written"]
    results: list[dict[str, Any]] = []
    for n in sorted(rng.sample(range(count + 1), min(options["power"], count + 1))):
        for kept in (True, False, random.Random(rng.random())):
            shutil.rmtree(folder)
            replay.after(n, kept, folder)
            code, then = forked(lambda: afterwards(one, folder))
            then = then or {"problems": [f"ended with {code}"], "digest": None, "left": []}
            how = (
                {True: "all", False: "none"}.get(kept, "some") if isinstance(kept, bool) else "some"
            )
            results.append(
                {**then, "met": f"power loss after {n} of {count}, {how} of the unsynced kept"}
            )
    shutil.rmtree(folder)
    replay.after(count, False, folder)
    code, digest = forked(lambda: one.after(folder))
    if code:
        problems.append("LOST what the command had committed when it ended, as the power went")
    return {"code": code, "problems": problems, "results": results, "digest": digest}


def same_tree(one: Path, other: Path) -> bool:
    def content(folder: Path) -> dict[str, bytes]:
        found = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    return content(one) == content(other)


def main(base: Path) -> None:
    import minift_files.parsing
    import minift_files.saving
    import minift_files.writers  # noqa: F401
    import minift_hub.models
    import minift_hub.publish  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch._dynamo

    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401 (by pyarrow, at its first array)

    import minift.models.bert
    import minift.training.trainer  # noqa: F401
    from minift import evaluate, tokenizer  # noqa: F401
    from minift.plugins import default_manager

    default_manager()
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(attempt(base, json.loads(line))) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
