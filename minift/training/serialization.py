"""State to files and back: models, optimizers and schedules as tensors and JSON, without pickle.

Tensors go to safetensors files, under the names of the parameters that they belong to; all else is
JSON. Checkpoints and `Accelerator.save_state` are made of both. What decides the result of a run is
part of its state, so that another run does not continue from it.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim import Optimizer

from minift.data.dataset import Dataset
from minift.data.fingerprint.values import column_digest, fingerprint
from minift.device import Device
from minift.errors import ConfigError, ModelError
from minift.files import local_path, write_text
from minift.models.pretrained import PretrainedModel
from minift.models.weights import model_tensors, save_weights, unwrap
from minift.training.arguments import DECISIVE
from minift.training.run import Run

BATCH_SIZES = ("per_device_train_batch_size", "gradient_accumulation_steps")
JSON = dict[str, Any]
State = tuple[dict[str, dict[str, Tensor]], JSON]  # {name of a file: its tensors}, and all else
PAIRS, COUNTS = "(key, value)", "(key, count)"  # mark a dict, a Counter with keys that are no text

# ------------------------------------------------------------------------------------------ models


def save_model(model: nn.Module, folder: str | Path, device: Device, tokenizer: Any = None) -> None:
    """Write a folder that `from_pretrained` opens; of any other nn.Module, model.safetensors."""
    model, folder = unwrap(model), local_path(folder)
    check_model(model)
    tensors = device.to_host(model_tensors(model))
    if isinstance(model, PretrainedModel):
        model.save_pretrained(folder, tensors)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(tensors, folder / "model.safetensors")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def load_model(model: nn.Module, folder: Path) -> None:
    """Copy saved weights into the model, in place: the optimizer holds its parameters.

    Raises:
        ConfigError: the names or shapes are not the model's.
    """
    tensors, saved = model_tensors(model), load_file(folder / "model.safetensors")
    there, here = ([f"{n} {tuple(t.shape)}" for n, t in each.items()] for each in (saved, tensors))
    check_names(there, here, f"{folder} holds the weights of another model")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])


def check_names(got: Collection[Any], expected: Collection[Any], what: str) -> None:
    """Raise a ConfigError that shows some of the names in which the two differ, if they do."""
    extra, missing = sorted(set(got) - set(expected)), sorted(set(expected) - set(got))
    if extra or missing:
        only = ", ".join(extra[:3]) or "nothing beside the expected"
        raise ConfigError(what, got=only, expected=", ".join(missing[:3]) or "not these")


def check_model(model: nn.Module) -> None:
    """Refuse what safetensors cannot hold, or what copying saved weights back would not restore.

    Raises:
        ModelError: names it.
    """
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    for name, tensor in model_tensors(model).items():
        try:
            save({name: tensor.detach().flatten()[:1].cpu()})  # one number is enough to tell
            if id(tensor) not in own:
                raise TypeError("no parameter and no buffer")
        except Exception as error:  # the library raises whatever it stumbles over
            do = "make it a plain tensor, or register_buffer(..., persistent=False)"
            raise ModelError(f"{name} of the model cannot be saved", got=error, do=do) from None


def checkpoint_bytes(model: nn.Module) -> int:
    """Return the size of a checkpoint: weights, AdamW's two moments of what trains, JSON."""
    weights = sum(t.numel() * t.element_size() for t in model_tensors(model).values())
    moments = sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights + moments + (1 << 20)


# ------------------------------------------------------------------- optimizers and their schedules


def training_state(
    model: nn.Module, device: Device, optimizers: list[Optimizer], schedules: list[Any], other: JSON
) -> State:
    """Return what training goes on from, beside the model.

    Args:
        model: holds the parameters that the optimizers update.
        device: its scaler is part of the state.
        optimizers: of the model.
        schedules: of the optimizers.
        other: is saved with the state.

    Returns:
        {name of a file: its tensors by name}, and JSON.
    """
    states = [optimizer_state(optimizer, model, device) for optimizer in optimizers]
    tensors = {optimizer_file(i): one for i, (one, _) in enumerate(states)}
    rates = [to_json(schedule.state_dict(), "the schedule's state") for schedule in schedules]
    scaler = device.scaler.state_dict() if device.scaler else None
    values = [value for _, value in states]
    return tensors, {"optimizers": values, "schedules": rates, "scaler": scaler, **other}


def write_state(path: Path, state: State) -> None:
    """Write the JSON of a state to `path`, and its tensors beside it."""
    for name, tensors in state[0].items():
        save_weights(tensors, path.with_name(name))
    write_text(path, json.dumps(state[1], indent=1))


def load_training_state(
    path: Path, model: nn.Module, device: Device, optimizers: list[Optimizer], schedules: list[Any]
) -> JSON:
    """Load a model and the state that `write_state` wrote beside it; return the state's JSON."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    load_model(model, path.parent)
    for i, optimizer in enumerate(optimizers):
        tensors = load_file(path.with_name(optimizer_file(i)))
        load_optimizer_state(optimizer, model, tensors, saved["optimizers"][i])
    for schedule, state in zip(schedules, saved["schedules"], strict=True):
        schedule.load_state_dict(from_json(state))
    if device.scaler is not None:
        device.scaler.load_state_dict(saved["scaler"])
    return saved


def optimizer_file(number: int) -> str:
    return f"optimizer_{number}.safetensors" if number else "optimizer.safetensors"


def optimizer_state(
    optimizer: Optimizer, model: nn.Module, device: Device
) -> tuple[dict[str, Tensor], JSON]:
    """Return an optimizer's state by parameter name: tensors, on the host, and all else as JSON.

    Its entries are called PARAMETER:ENTRY, for example "bert.pooler.dense.weight:exp_avg".

    Raises:
        ConfigError: it updates a parameter that the model does not have.
    """
    state = optimizer.state_dict()  # torch numbers the parameters, over all groups
    names = parameter_names(optimizer, model)
    if "?" in names:
        raise ConfigError("the optimizer has a parameter that the model does not have")
    groups = []
    for group in state["param_groups"]:
        params = [names[number] for number in group.pop("params")]
        groups.append({**to_json(group, "the optimizer's setting"), "params": params})
    numbered = state["state"].items()
    entries = {f"{names[i]}:{key}": v for i, one in numbered for key, v in one.items()}
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    values = {name: to_json(entries[name], name) for name in entries if name not in tensors}
    return device.to_host(tensors), {"groups": groups, "values": values}


def parameter_names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Return the model's name, or "?", of each parameter of an optimizer, in its groups' order."""
    names = {id(tensor): name for name, tensor in model_tensors(model).items()}
    return [names.get(id(p), "?") for group in optimizer.param_groups for p in group["params"]]


def load_optimizer_state(
    optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> None:
    """Give an optimizer the state that `optimizer_state` returned, parameter by parameter.

    Raises:
        ConfigError: it updates other parameters than the one that was saved.
    """
    number = {name: i for i, name in enumerate(parameter_names(optimizer, model))}
    params = [name for group in saved["groups"] for name in group["params"]]
    check_names(number, params, "the checkpoint's optimizer updates other parameters")
    groups = [{**g, "params": [number[name] for name in g["params"]]} for g in saved["groups"]]
    here = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if here != [group["params"] for group in groups]:
        raise ConfigError("the checkpoint's optimizer has its parameters in other groups")
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *from_json(saved["values"]).items()]:
        name, _, entry = key.rpartition(":")
        state.setdefault(number[name], {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


# -------------------------------------------------------------------------------------------- JSON


def to_json(value: Any, what: str) -> Any:
    """Return a state as JSON that `from_json` turns back; other keys than strings become pairs.

    Raises:
        ConfigError: there is a value in it that JSON cannot hold; the message names it by `what`.
    """
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(inner, f"{what}.{key}") for key, inner in value.items()}
        mark = COUNTS if isinstance(value, Counter) else PAIRS
        return {mark: [[key, to_json(inner, f"{what}.{key}")] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [to_json(inner, what) for inner in value]
    if value is None or isinstance(value, str | int | float):
        return value
    what, do = f"{what} cannot be saved in a checkpoint", "use numbers, texts, lists and dicts"
    raise ConfigError(what, got=type(value).__name__, do=do)


def from_json(value: Any) -> Any:
    """Return the state that `to_json` was given; tuples have become lists."""
    if isinstance(value, dict):
        if COUNTS in value:
            return Counter(dict(value[COUNTS]))
        pairs = value.get(PAIRS, value.items())
        return {key: from_json(inner) for key, inner in pairs}
    return [from_json(inner) for inner in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------ training runs


def run_state(run: Run) -> State:
    """Return what a run consists of beside its model, see `training_state`."""
    other = {
        "state": asdict(run.state),
        "losses": run.losses.state_dict(),
        "arguments": run.args.to_dict(),
        "setup": setup_of(run),
        "device": run.device.description,
        "world_size": run.device.world_size,
    }
    return training_state(run.model, run.device, [run.optimizer], [run.scheduler], other)


def setup_of(run: Run) -> dict[str, Any]:
    """Return what decides the result of a run beside its arguments."""
    model = unwrap(run.model)
    config = model.config.to_dict() if isinstance(model, PretrainedModel) else None
    setup = {
        "rows in an update": run.micro_batch_size * run.args.gradient_accumulation_steps,
        "rows in an epoch": run.epoch_rows,
        "train_dataset": run.data_digests.get("train"),
        "eval_dataset": run.data_digests.get("eval"),
        "model's config": config,
        "optimizer": type(run.optimizer).__name__,
        "schedule": type(run.scheduler).__name__,
    }
    return json.loads(json.dumps(setup, default=str))


def dataset_digest(dataset: Dataset) -> str:
    """Return a digest of the rows themselves, wherever and whenever they were read."""
    columns = [(name, column_digest(dataset.arrow_column(name))) for name in dataset.features]
    return fingerprint("content", columns)


def check_same_setup(run: Run, saved: Mapping[str, Any], folder: Path) -> None:
    """Refuse a checkpoint of another run: the result would be neither one's nor the other's."""
    then = {**saved["arguments"], "max_steps": saved["state"]["max_steps"], **saved["setup"]}
    now = {**run.args.to_dict(), "max_steps": run.state.max_steps, **setup_of(run)}
    names = [*DECISIVE, *saved["setup"]]
    before, ranks = saved["world_size"], run.device.world_size
    if before != ranks:
        names = [name for name in names if name not in BATCH_SIZES]  # "rows in an update" stays
        what = f"saved by {before} processes, and now there are {ranks}"
        run.log_message(f"{what}: the same rows in the same order; rounding and dropout differ")
    if now["eval_dataset"] is None or then["eval_dataset"] is None:  # one run evaluates nothing
        names.remove("eval_dataset")
    different = [name for name in names if then.get(name) != now[name]]
    if different:
        got = ", ".join(f"{name}={now[name]!r:.200}" for name in different)
        expected = ", ".join(f"{name}={then.get(name)!r:.200}" for name in different)
        what = f"{folder} was saved by a run with other settings"
        raise ConfigError(what, got=got, expected=expected, do="resume with those, or start anew")
