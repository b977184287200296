"""Checkpoints: complete or not there, without pickle, enough to go on to the bit.

    output_dir/checkpoint-40/
      config.json, model.safetensors, ...  the model, a folder that `from_pretrained` opens
      optimizer.safetensors                "NAME:exp_avg" and so on, by the parameter's name
      state.json                           where the run is, its settings, its schedule
      manifest.json                        written last: length and sha256 of each of the others

Everything is written to a folder beside the final one, brought to the disk, and then renamed, so a
kill or a full disk at any moment leaves what was there before. A reader believes only a folder
whose every byte is as its manifest says.

No generator is saved: the loop computes its random streams from the seed and the step (`rng.py`).
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minift.data.dataset import Dataset
from minift.data.fingerprint import column_digest, fingerprint
from minift.device import Device
from minift.errors import ConfigError, DataError, MissingFileError, TrainingError
from minift.files import replace_folder, sync_folder, write_text
from minift.models.pretrained import PretrainedModel
from minift.models.weights import save_weights
from minift.training.arguments import DECISIVE
from minift.training.run import Run, TrainerState

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps")  # of an update's rows
PAIRS, COUNTS = "(key, value)", "(key, count)"  # mark a dict, a Counter with keys that are no text

# ------------------------------------------------------------------ a folder: whole, or not there


@contextlib.contextmanager
def new_folder(folder: Path, meta: Mapping[str, Any], size: int) -> Iterator[Path]:
    """A scratch folder that becomes `folder`, whole, when the block ends without an error.

    Args:
        folder: its final name; a folder that has it already gives way at the very end.
        meta: JSON that the manifest holds beside the files; "run" says whose it is.
        size: how many bytes will be written; they must be free before anything is.

    Raises:
        TrainingError: there is no space, or writing failed; what was there is as it was.
    """
    scratch = folder.with_name(f".{folder.name}.tmp-{meta['run']}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        check_space(folder.parent, size)
        scratch.mkdir()
        yield scratch
        write_text(scratch / MANIFEST, json.dumps({**meta, "files": sums(scratch)}, indent=1))
        sync_folder(scratch)
        if folder.exists() and run_of(folder) is None:  # nobody knows whose: it is not deleted
            os.replace(folder, folder.with_name(f"{folder.name}.unknown-{uuid.uuid4().hex[:8]}"))
        replace_folder(scratch, folder)
    except Exception as error:  # the safetensors library raises errors of its own
        if isinstance(error, TrainingError) or not is_about_files(error):
            raise
        raise TrainingError(
            f"{folder} cannot be written",
            got=error,
            expected=f"a folder to write {size:,} bytes to",
            do="make space, then resume from the newest checkpoint: all that was saved is intact",
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put right what a kill in the middle of `new_folder` left beside a folder."""
    for half in folder.parent.glob(f".{folder.name}.tmp-*"):
        if half.name.endswith("-old") and not folder.exists():  # between the two renames
            os.replace(half, folder)
        shutil.rmtree(half, ignore_errors=True)


def is_about_files(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


def check_space(folder: Path, size: int) -> None:
    """Whether so many bytes are free in a folder."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise TrainingError(
            f"there is no space for a checkpoint in {folder}",
            got=f"{free:,} bytes free",
            expected=f"{size:,} bytes",
            do="make space, or choose another output_dir; nothing that was saved is touched",
        )


def sums(folder: Path) -> dict[str, dict[str, Any]]:
    """Length and sha256 of each file, which is on the disk when they are known."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.name] = {"bytes": path.stat().st_size, "sha256": digest}
    return found


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder in which every byte is as it was written.

    Raises:
        DataError: there is no manifest, or a file is missing, shorter, or changed; says which.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (said["bytes"], said["sha256"]) for name, said in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{folder} is not a complete checkpoint: it has no manifest") from None
    for name, (size, digest) in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise DataError(f"{folder} is damaged: {name} is missing")
        if path.stat().st_size != size:
            raise DataError(
                f"{folder} is damaged: {name} has another length",
                got=path.stat().st_size,
                expected=size,
            )
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DataError(f"{folder} is damaged: the content of {name} has changed")
    return manifest


# --------------------------------------------------------------------------- which ones there are


def listed(output_dir: Path) -> list[Path]:
    """The folders called checkpoint-STEP, oldest first."""
    found = output_dir.glob(f"{PREFIX}*") if output_dir.is_dir() else ()
    numbered = [p for p in found if p.name.removeprefix(PREFIX).isdigit() and p.is_dir()]
    return sorted(numbered, key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def run_of(folder: Path, file: str = MANIFEST) -> str | None:
    """The run that wrote a folder, as a file in it says; None if that is not there or damaged."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((folder / file).read_text(encoding="utf-8")).get("run")
    return None


def newest(output_dir: Path, run: str | None, say: Callable[[str], None]) -> Path:
    """The newest valid checkpoint of a run; what is skipped on the way to it is said.

    Args:
        output_dir: the run folder.
        run: which run's; None takes any, where nothing says whose the folder is.
        say: told what was skipped, and why.

    Raises:
        MissingFileError: there is none.
    """
    for folder in reversed(listed(output_dir)):
        try:
            if run in (None, verify(folder).get("run")):
                read_state(folder)
                return folder
            say(f"skipped {folder}: an earlier run in this folder wrote it")
        except (DataError, MissingFileError) as error:
            say(f"skipped {folder}: {error}")
    raise MissingFileError(
        f"there is no valid checkpoint in {output_dir}",
        got=", ".join(p.name for p in listed(output_dir)) or "no folder called checkpoint-STEP",
        do="start without resume_from_checkpoint, or name a checkpoint",
    )


def named(folder: Path) -> Path:
    """A checkpoint by its path, verified.

    Raises:
        MissingFileError: there is no such folder, or it is the one that checkpoints are in.
        DataError: it is damaged.
    """
    inside = ", ".join(path.name for path in listed(folder))
    if inside or not folder.is_dir():
        raise MissingFileError(
            f"{folder} is not a checkpoint",
            got=f"a run folder, with {inside}" if inside else "no such folder",
            expected="a folder called checkpoint-STEP; or True for the newest in output_dir",
        )
    verify(folder)
    return folder


def rotate(saved: Path, run: str, limit: int | None) -> None:
    """Keep what was just saved and the newest others of this run, `limit` in all.

    Another run's are never touched. There are later ones than `saved` if the run went on from an
    earlier checkpoint, because these were damaged for example.
    """
    others = [p for p in listed(saved.parent) if p != saved and run_of(p) == run]
    others.sort(key=lambda folder: step_of(folder) < step_of(saved))  # these go on from `saved`
    for folder in others[: max(0, len(others) + 1 - limit)] if limit else ():
        remove(folder, run)
    remove_halves(saved.parent, run)


def remove_halves(output_dir: Path, run: str) -> None:
    """What a run left that was killed while it wrote or removed a folder."""
    for half in output_dir.glob(f".*.tmp-{run}*"):
        recover(output_dir / half.name[1:].partition(".tmp-")[0])


def remove(folder: Path, run: str) -> None:
    """Out of the way in one step, so that a kill leaves no half of it under its own name."""
    gone = folder.with_name(f".{folder.name}.tmp-{run}-gone")
    with contextlib.suppress(OSError):
        os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


# ------------------------------------------------------------------------- model and optimizer


def parameters_once(model: nn.Module) -> dict[str, Tensor]:
    """What `state_dict` holds, with tensors that have two names under the first of them."""
    once: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not any(tensor is other for other in once.values()):
            once[name] = tensor
    return once


def save_model(model: nn.Module, folder: Path, device: Device, tokenizer: Any = None) -> None:
    """The model alone: as `from_pretrained` opens it, or a stranger's as model.safetensors."""
    tensors = device.to_host(parameters_once(model))
    if isinstance(model, PretrainedModel):
        model.save_pretrained(folder, tensors)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(tensors, folder / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def load_model(model: nn.Module, folder: Path) -> None:
    """Copy a checkpoint's weights into the model, in place: the optimizer holds its parameters."""
    own, saved = parameters_once(model), read_tensors(folder / "model.safetensors")
    refuse_other_names(saved, own, f"{folder} holds the weights of another model")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != saved[name].shape:
                raise ConfigError(
                    f"{folder}: {name} has another shape than the model's",
                    got=tuple(saved[name].shape),
                    expected=tuple(tensor.shape),
                )
            tensor.copy_(saved[name])


def read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def refuse_other_names(got: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    if set(got) != set(expected):
        raise ConfigError(
            what,
            got=", ".join(sorted(set(got) - set(expected))[:3]) or "nothing beside the expected",
            expected=", ".join(sorted(set(expected) - set(got))[:3]) or "not these",
        )


def optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, device: Device
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's tensors, on the host, and the rest of its state as JSON, by parameter name.

    Raises:
        ConfigError: it updates a parameter that the model does not have.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        if any(id(p) not in names for p in group["params"]):
            raise ConfigError("the optimizer has a parameter that the model does not have")
        own = [names[id(p)] for p in group["params"]]
        plain = {k: v for k, v in group.items() if k != "params"}
        groups.append({**to_json(plain, "the optimizer's setting"), "params": own})
        for name, p in zip(own, group["params"], strict=True):
            for key, value in optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}:{key}"] = value
                else:
                    rest[f"{name}:{key}"] = to_json(value, f"the optimizer's {key}")
    return device.to_host(tensors), {"groups": groups, "rest": rest}


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    said: Mapping[str, Any],
) -> None:
    """Give an optimizer the state that `optimizer_state` took, parameter by parameter.

    Raises:
        ConfigError: it updates other parameters than the one that was saved.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    own = [[names.get(id(p), "?") for p in group["params"]] for group in optimizer.param_groups]
    saved = [group["params"] for group in said["groups"]]
    if own != saved:
        got, expected = (dict.fromkeys(chain.from_iterable(groups)) for groups in (own, saved))
        refuse_other_names(got, expected, "the checkpoint's optimizer updates other parameters")
        raise ConfigError("the checkpoint's optimizer has its parameters in other groups")
    state: dict[str, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *from_json(said["rest"]).items()]:
        name, _, entry = key.rpartition(":")
        state.setdefault(name, {})[entry] = value
    numbers = {name: i for i, name in enumerate(chain.from_iterable(saved))}
    groups = [{**g, "params": [numbers[n] for n in g["params"]]} for g in said["groups"]]
    by_number = {numbers[name]: entries for name, entries in state.items()}
    optimizer.load_state_dict({"state": by_number, "param_groups": groups})


def to_json(value: Any, what: str) -> Any:
    """A state as JSON that `from_json` turns back; other keys than strings become pairs.

    Raises:
        ConfigError: JSON has no form for a value in it; names it by `what`.
    """
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(inner, f"{what}.{key}") for key, inner in value.items()}
        kind = COUNTS if isinstance(value, Counter) else PAIRS
        return {kind: [[key, to_json(inner, f"{what}.{key}")] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [to_json(inner, what) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(
        f"{what} cannot be saved in a checkpoint",
        got=type(value).__name__,
        expected="numbers, texts, and lists and dicts of them",
        do="use a float instead of a tensor; or save_strategy='no'",
    )


def from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if COUNTS in value:
            return Counter(dict(value[COUNTS]))
        pairs = value.get(PAIRS, value.items())
        return {key: from_json(inner) for key, inner in pairs}
    return [from_json(inner) for inner in value] if isinstance(value, list) else value


def size_of(model: nn.Module) -> int:
    """Bytes of a checkpoint: the weights, AdamW's two moments of those that train, the rest."""
    weights = sum(t.numel() * t.element_size() for t in parameters_once(model).values())
    moments = sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights + moments + (1 << 20)


# ------------------------------------------------------------------------------------- a whole run


def save(run: Run) -> None:
    """Write checkpoint-STEP, and remove the oldest of this run beyond save_total_limit.

    One process writes, and the others wait until all is there.

    Raises:
        TrainingError: there is no space; all earlier checkpoints are intact.
    """
    if run.writes:
        write(run)
    run.device.barrier()


def write(run: Run) -> None:
    """What `save` does in the process that writes."""
    step, model = run.state.global_step, run.model
    folder = run.folder / f"{PREFIX}{step}"
    with new_folder(folder, {"run": run.id, "step": step}, size_of(model)) as scratch:
        save_model(model, scratch, run.device, run.processing_class)
        if not run.args.save_only_model:
            tensors, said = optimizer_state(run.optimizer, model, run.device)
            save_weights(tensors, scratch / "optimizer.safetensors")
            record = {**state_of(run), "optimizer": said}
            write_text(scratch / "state.json", json.dumps(record, indent=1))
    rotate(folder, run.id, run.args.save_total_limit)
    forget_worse(run)
    run.call_observers("minift_on_save", path=folder)


def state_of(run: Run) -> dict[str, Any]:
    """What a run is made of beside its tensors, as JSON."""
    return {
        "state": asdict(run.state),
        "window": run.window.sums(),
        "schedule": to_json(run.scheduler.state_dict(), "the schedule's state"),
        "scaler": run.device.scaler.state_dict() if run.device.scaler else None,
        "arguments": run.args.to_dict(),
        "parts": parts_of(run),
        "device": run.device.description,
        "processes": run.device.world_size,
    }


def parts_of(run: Run) -> dict[str, Any]:
    """What else than the arguments decides what a run computes."""
    family = run.model if isinstance(run.model, PretrainedModel) else None
    rows, at_once = len(run.train_dataset or ()), run.rows_at_once
    parts = {
        "rows in an update": at_once * run.args.gradient_accumulation_steps,
        "rows in an epoch": rows - rows % at_once if run.args.dataloader_drop_last else rows,
        "train_dataset": run.digests.get("train"),
        "eval_dataset": run.digests.get("eval"),
        "model's config": family.config.to_dict() if family else None,
        "optimizer": type(run.optimizer).__name__,
        "schedule": type(run.scheduler).__name__,
    }
    return json.loads(json.dumps(parts, default=str))


def content_of(dataset: Dataset) -> str:
    """A digest of the rows themselves, wherever they were read from and whenever."""
    columns = [
        (n, column_digest(dataset.to_arrow(columns=[n]).column(n))) for n in dataset.features
    ]
    return fingerprint("content", columns)


def read_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint.

    Raises:
        MissingFileError: it holds the model alone.
    """
    path = folder / "state.json"
    if not path.is_file():
        what = f"{folder} holds a model alone (save_only_model), which cannot be resumed"
        raise MissingFileError(what, do="start a new run from that model")
    return json.loads(path.read_text(encoding="utf-8"))


def restore(run: Run, folder: Path) -> None:
    """Put a run, built as the saved one was, where that one stood; the folder has been verified.

    Raises:
        ConfigError: settings, rows or model are others than the saved run's; says which.
    """
    said = read_state(folder)
    refuse_other_run(run, said, folder)
    load_model(run.model, folder)
    tensors = read_tensors(folder / "optimizer.safetensors")
    restore_optimizer(run.optimizer, run.model, tensors, said["optimizer"])
    run.scheduler.load_state_dict(from_json(said["schedule"]))
    if run.device.scaler is not None:
        run.device.scaler.load_state_dict(said["scaler"])
    run.state, run.id = TrainerState(**said["state"]), run_of(folder) or run.id
    run.window.restore(said["window"], run.state.global_step)
    if run.args.load_best_model_at_end:
        try:
            best_of(run)
        except DataError as error:  # a better one may follow; else the end will ask for this
            run.log_message(f"the best model so far cannot be loaded: {error}")
    if said["device"] != run.device.description:
        run.log_message(
            f"saved on {said['device']}: on {run.device.description} results are equal to rounding"
        )


def refuse_other_run(run: Run, said: Mapping[str, Any], folder: Path) -> None:
    """A run goes on as it began, or the result would be neither one nor the other."""
    then = {**said["arguments"], "max_steps": said["state"]["max_steps"], **said["parts"]}
    now = {**run.args.to_dict(), "max_steps": run.state.max_steps, **parts_of(run)}
    names = [*DECISIVE, *said["parts"]]
    if (before := said.get("processes", 1)) != run.device.world_size:
        names = [name for name in names if name not in SPLIT]  # "rows in an update" stays
        run.log_message(
            f"saved by {before} processes, and now there are {run.device.world_size}: the same "
            "rows in the same order, equal to rounding but for dropout's masks"
        )
    other = [name for name in names if then.get(name) != now[name]]
    if now["eval_dataset"] is None or then["eval_dataset"] is None:  # or not evaluated on
        other = [name for name in other if name != "eval_dataset"]
    if other:
        raise ConfigError(
            f"{folder} was saved by a run with other settings",
            got=", ".join(f"{name}={now[name]!r:.200}" for name in other),
            expected=", ".join(f"{name}={then.get(name)!r:.200}" for name in other),
            do="resume with those of the saved run, or start a new run from the model in there",
        )


def save_best(run: Run) -> None:
    """Keep the model as it is now in best-STEP, whatever is saved when."""
    folder = run.folder / f"best-{run.state.best_step}"
    run.state.best_model_checkpoint = str(folder)
    if run.writes:
        meta = {"run": run.id, "step": run.state.best_step}
        with new_folder(folder, meta, size_of(run.model)) as scratch:
            save_model(run.model, scratch, run.device, run.processing_class)
        forget_worse(run)
    run.device.barrier()


def forget_worse(run: Run) -> None:
    """Remove this run's best-STEP that neither it nor its newest checkpoint would go on with."""
    needed = {name_of_best(asdict(run.state))}
    for path in [p for p in listed(run.folder) if run_of(p) == run.id][-1:]:
        with contextlib.suppress(MissingFileError, ValueError, KeyError):  # it may be damaged
            needed.add(name_of_best(read_state(path)["state"]))
    for path in run.folder.glob("best-*"):
        if path.name not in needed and run_of(path) == run.id:
            remove(path, run.id)


def name_of_best(state: Mapping[str, Any]) -> str:
    """The folder's name alone: its path differs once the run was moved."""
    return Path(state["best_model_checkpoint"] or "").name


def load_best(run: Run) -> None:
    """End with the weights that were best.

    Raises:
        DataError: they are gone or damaged; the last ones are in the newest checkpoint.
    """
    if (folder := best_of(run)) is not None:
        load_model(run.model, folder)


def best_of(run: Run) -> Path | None:
    """The folder of the best model, verified; it may have moved with the run."""
    if run.state.best_model_checkpoint is None:
        return None
    folder = Path(run.state.best_model_checkpoint)
    folder = folder if folder.is_dir() else run.folder / folder.name
    verify(folder)
    return folder
