"""State to files and back: models, optimizers and schedules as tensors and JSON, without pickle.

Tensors go to safetensors files, under the names of the parameters that they belong to; all else is
JSON. Checkpoints and `Accelerator.save_state` are made of both. What decides the result of a run is
part of its state, so that another run does not continue from it.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minift.data.dataset import Dataset
from minift.data.fingerprint.values import column_digest, fingerprint
from minift.device import Device
from minift.errors import ConfigError
from minift.models.pretrained import PretrainedModel
from minift.models.weights import save_weights
from minift.training.arguments import DECISIVE
from minift.training.run import Run

BATCH_SIZES = ("per_device_train_batch_size", "gradient_accumulation_steps")
PAIRS, COUNTS = "(key, value)", "(key, count)"  # mark a dict, a Counter with keys that are no text

# ------------------------------------------------------------------------------------------ models


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return `state_dict`, with a tensor that has two names under the first of them alone."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not any(tensor is other for other in tensors.values()):
            tensors[name] = tensor
    return tensors


def save_model(model: nn.Module, folder: Path, device: Device, tokenizer: Any = None) -> None:
    """Write a folder that `from_pretrained` opens; of any other nn.Module, model.safetensors."""
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
    tensors, saved = model_tensors(model), read_tensors(folder / "model.safetensors")
    check_names(saved, tensors, f"{folder} holds the weights of another model")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape != saved[name].shape:
                raise ConfigError(
                    f"{folder}: {name} has another shape than the model's",
                    got=tuple(saved[name].shape),
                    expected=tuple(tensor.shape),
                )
            tensor.copy_(saved[name])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name."""
    from safetensors.torch import load_file

    return load_file(path)


def check_names(got: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """Raise a ConfigError that shows some of the names in which the two differ, if they do."""
    if set(got) != set(expected):
        raise ConfigError(
            what,
            got=", ".join(sorted(set(got) - set(expected))[:3]) or "nothing beside the expected",
            expected=", ".join(sorted(set(expected) - set(got))[:3]) or "not these",
        )


def checkpoint_bytes(model: nn.Module) -> int:
    """Return the size of a checkpoint: weights, AdamW's two moments of what trains, JSON."""
    weights = sum(t.numel() * t.element_size() for t in model_tensors(model).values())
    moments = sum(2 * p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights + moments + (1 << 20)


# -------------------------------------------------------------------------------------- optimizers


def optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, device: Device
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state by parameter name: tensors, on the host, and all else as JSON.

    Its entries are called PARAMETER:ENTRY, for example "bert.pooler.dense.weight:exp_avg".

    Raises:
        ConfigError: it updates a parameter that the model does not have.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        if any(id(p) not in names for p in group["params"]):
            raise ConfigError("the optimizer has a parameter that the model does not have")
        params = [names[id(p)] for p in group["params"]]
        settings = {k: v for k, v in group.items() if k != "params"}
        groups.append({**to_json(settings, "the optimizer's setting"), "params": params})
        for name, p in zip(params, group["params"], strict=True):
            for key, value in optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}:{key}"] = value
                else:
                    values[f"{name}:{key}"] = to_json(value, f"the optimizer's {key}")
    return device.to_host(tensors), {"groups": groups, "values": values}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    saved: Mapping[str, Any],
) -> None:
    """Give an optimizer the state that `optimizer_state` returned, parameter by parameter.

    Raises:
        ConfigError: it updates other parameters than the one that was saved.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    here = [[names.get(id(p), "?") for p in group["params"]] for group in optimizer.param_groups]
    there = [group["params"] for group in saved["groups"]]
    if here != there:
        got, expected = (dict.fromkeys(chain.from_iterable(groups)) for groups in (here, there))
        check_names(got, expected, "the checkpoint's optimizer updates other parameters")
        raise ConfigError("the checkpoint's optimizer has its parameters in other groups")
    number = {name: i for i, name in enumerate(chain.from_iterable(there))}  # as torch names them
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *from_json(saved["values"]).items()]:
        name, _, entry = key.rpartition(":")
        state.setdefault(number[name], {})[entry] = value
    groups = [{**g, "params": [number[name] for name in g["params"]]} for g in saved["groups"]]
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
    raise ConfigError(
        f"{what} cannot be saved in a checkpoint",
        got=type(value).__name__,
        expected="numbers, texts, and lists and dicts of them",
        do="use a float instead of a tensor; or save_strategy='no'",
    )


def from_json(value: Any) -> Any:
    """Return the state that `to_json` was given; tuples have become lists."""
    if isinstance(value, dict):
        if COUNTS in value:
            return Counter(dict(value[COUNTS]))
        pairs = value.get(PAIRS, value.items())
        return {key: from_json(inner) for key, inner in pairs}
    return [from_json(inner) for inner in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------ training runs


def training_state(run: Run) -> dict[str, Any]:
    """Return what a run consists of beside its tensors, as JSON."""
    return {
        "state": asdict(run.state),
        "losses": run.losses.state_dict(),
        "schedule": to_json(run.scheduler.state_dict(), "the schedule's state"),
        "scaler": run.device.scaler.state_dict() if run.device.scaler else None,
        "arguments": run.args.to_dict(),
        "setup": setup_of(run),
        "device": run.device.description,
        "world_size": run.device.world_size,
    }


def setup_of(run: Run) -> dict[str, Any]:
    """Return what decides the result of a run beside its arguments."""
    rows, at_once = len(run.train_dataset or ()), run.micro_batch_size
    setup = {
        "rows in an update": at_once * run.args.gradient_accumulation_steps,
        "rows in an epoch": rows - rows % at_once if run.args.dataloader_drop_last else rows,
        "train_dataset": run.data_digests.get("train"),
        "eval_dataset": run.data_digests.get("eval"),
        "model's config": (
            run.model.config.to_dict() if isinstance(run.model, PretrainedModel) else None
        ),
        "optimizer": type(run.optimizer).__name__,
        "schedule": type(run.scheduler).__name__,
    }
    return json.loads(json.dumps(setup, default=str))


def dataset_digest(dataset: Dataset) -> str:
    """Return a digest of the rows themselves, wherever and whenever they were read."""
    columns = [
        (n, column_digest(dataset.to_arrow(columns=[n]).column(n))) for n in dataset.features
    ]
    return fingerprint("content", columns)


def check_same_setup(run: Run, saved: Mapping[str, Any], folder: Path) -> None:
    """Refuse a checkpoint of another run: the result would be neither one's nor the other's."""
    then = {**saved["arguments"], "max_steps": saved["state"]["max_steps"], **saved["setup"]}
    now = {**run.args.to_dict(), "max_steps": run.state.max_steps, **setup_of(run)}
    names = [*DECISIVE, *saved["setup"]]
    if saved["world_size"] != run.device.world_size:
        names = [name for name in names if name not in BATCH_SIZES]  # "rows in an update" stays
        run.log_message(
            f"saved by {saved['world_size']} processes, and now there are {run.device.world_size}:"
            " the same rows in the same order, equal to rounding but for dropout's masks"
        )
    if now["eval_dataset"] is None or then["eval_dataset"] is None:  # one run evaluates nothing
        names.remove("eval_dataset")
    different = [name for name in names if then.get(name) != now[name]]
    if different:
        raise ConfigError(
            f"{folder} was saved by a run with other settings",
            got=", ".join(f"{name}={now[name]!r:.200}" for name in different),
            expected=", ".join(f"{name}={then.get(name)!r:.200}" for name in different),
            do="resume with those of the saved run, or start a new run from the model in there",
        )
