"""Read and write safetensors files, and match their names with a model's parameters.

No pickle is ever opened: a folder with only `pytorch_model.bin` is refused. Shapes are compared
with the model's before any of its memory is allocated. The report lists each name in the file as
loaded or unused, and each parameter of the model as loaded or newly initialised.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minift.errors import MissingFileError, ModelError
from minift.files import new_file, read_json

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# In files, but not parameters of an encoder: a buffer of 0..511, and heads of other tasks.
UNUSED_WITHOUT_MENTION = (
    *("position_ids", "rotary_emb.", "pooler.", "cls.", "lm_head.", "vocab_", "qa_outputs."),
    *("mask_predictions.", "discriminator_predictions.", "generator_", "decoder."),
)
PARALLEL = nn.DataParallel | nn.parallel.DistributedDataParallel
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class LoadReport:
    """What `from_pretrained` did with each name.

    Attributes:
        source: the folder, or the name by which a plugin found it.
        revision: the exact version, if it has one.
        loaded: how many tensors were read from the file.
        new: parameters that the file lacks (or has in another shape): newly initialised.
        unused: tensors in the file that the model does not have.
    """

    source: str
    loaded: int = 0
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    revision: str = ""

    def __str__(self) -> str:
        lines = [
            f"weights of {self.source}",
            f"  loaded from the file   {self.loaded} tensors",
            f"  newly initialised      {', '.join(self.new) or 'none'}",
            f"  in the file, not used  {', '.join(self.unused) or 'none'}",
        ]
        if self.new:
            lines.append("  New weights know nothing yet: train the model before you use it.")
        return "\n".join(lines)


# ------------------------------------------------------------------------------------------- files


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a model: one, or several with an index.

    Raises:
        MissingFileError: there are none, or the index names one that is missing.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if WEIGHTS in names:
        return [folder / WEIGHTS]
    if WEIGHTS_INDEX in names:
        index = folder / WEIGHTS_INDEX
        return [folder / name for name in shard_names(read_json(index), names, str(index))]
    pickles = ", ".join(sorted(name for name in names if name.endswith(".bin")))
    do = "convert it where you trust it: a .bin file is a pickle and can run any code"
    what = f"{folder} has no {WEIGHTS} and no {WEIGHTS_INDEX}"
    raise MissingFileError(what, got=pickles or None, do=do if pickles else "check the path")


def shard_names(index: Mapping[str, Any], present: Collection[str], source: str) -> list[str]:
    """List the files that the index of a model in several files names.

    Args:
        index: the content of `model.safetensors.index.json`, which anybody may have written.
        present: names of the files beside it.
        source: what errors call the index.

    Raises:
        ModelError: it names no files, or one that is outside its folder or no safetensors file.
        MissingFileError: it names one that is not there.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{source} has no weight_map", expected="{name: file}")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if re.search(r"[/\\]", name) or not name.endswith(".safetensors"):
            what = f"{source} names a file outside its folder, or no safetensors file"
            raise ModelError(what, got=repr(name))
        if name not in present:
            raise MissingFileError(f"{source} names a file that is missing", got=repr(name))
    return names


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read {name in the file: shape} from the files' headers alone."""
    return {name: tuple(file.get_slice(name).get_shape()) for file, name in tensor_names(folder)}


def read_tensors(folder: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Read {parameter: fp32 tensor} for `names`, {name in the file: parameter}.

    The tensors are copies: those of the library are views of the file, and would change with it.

    Raises:
        ModelError: a tensor is quantised, so its numbers mean nothing without their scales.
    """
    tensors = {}
    for file, name in tensor_names(folder):
        if name in names:
            tensor = file.get_tensor(name)
            if tensor.dtype not in FLOATS:
                what = f"{folder}: {name} is quantised"
                raise ModelError(what, got=tensor.dtype, expected=list(FLOATS))
            tensors[names[name]] = tensor.to(torch.float32, copy=True)
    return tensors


def tensor_names(folder: Path) -> Iterator[tuple[safe_open, str]]:
    """Yield each name in a model's files, with the open file.

    Raises:
        ModelError: a file is damaged, or something else; safetensors checks header and length.
    """
    for path in weight_files(folder):
        try:
            opened = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            what = f"{path} is not a complete safetensors file: {error}"
            got = f"{path.stat().st_size:,} bytes"
            raise ModelError(what, got=got, do="download or copy it again") from None
        with opened as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                yield file, name


def save_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file so that it is there complete or not at all.

    Tensors that share memory become copies: the format has no views.
    """
    memory = {name: tensor.untyped_storage().data_ptr() for name, tensor in tensors.items()}
    uses = Counter(memory.values())
    own = {name: t.clone() if uses[memory[name]] > 1 else t for name, t in tensors.items()}
    with new_file(path) as scratch:
        save_file(own, scratch, metadata={"format": "pt"})
        scratch.chmod(scratch.parent.stat().st_mode & 0o666)  # else nobody but its owner reads it


# ------------------------------------------------------------------------------------------- names


def unwrap(model: Any) -> Any:
    """Return the model inside of torch's wrappers: those of `torch.compile` and DataParallel."""
    while hasattr(model, "_orig_mod") or isinstance(model, PARALLEL):
        model = model.module if isinstance(model, PARALLEL) else model._orig_mod
    return model


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return `state_dict`, with a tensor that has two names under the first of them alone.

    The names are those without the wrapper that `torch.compile` puts around a model or a part.
    """
    tensors: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in unwrap(model).state_dict(keep_vars=True).items():
        tensors.setdefault(id(tensor), (name.replace("_orig_mod.", ""), tensor))
    return dict(tensors.values())


def match_names(
    file_shapes: Mapping[str, tuple[int, ...]], model_shapes: Mapping[str, tuple[int, ...]],
    base_model_prefix: str, head_prefixes: tuple[str, ...], source: str, new_head: bool = False,
) -> tuple[dict[str, str], LoadReport]:  # fmt: skip
    """Match the names in a file with the parameters of a model.

    Args:
        file_shapes: {name in the file: shape}.
        model_shapes: {parameter: shape}.
        base_model_prefix: of the encoder inside the model, for example "bert"; a file may lack it.
        head_prefixes: beginnings of the parameters that the file may lack (another task's head).
        source: what the report and errors call the file.
        new_head: True if a new head may replace one of another shape.

    Returns:
        {name in the file: parameter}, and the report.

    Raises:
        ModelError: the file lacks a parameter of the encoder, or has it in another shape, or has
            layers beyond those of config.json.
    """
    names: dict[str, str] = {}
    unused: list[str] = []
    prefix = f"{base_model_prefix}."
    for name, shape in file_shapes.items():
        today = name.replace("LayerNorm.gamma", "LayerNorm.weight")  # as TensorFlow had it
        today = today.replace("LayerNorm.beta", "LayerNorm.bias")
        choices = (today, prefix + today, today.removeprefix(prefix))
        parameter = next((choice for choice in choices if choice in model_shapes), None)
        differs = parameter is not None and shape != model_shapes[parameter]
        if parameter is None or (differs and new_head and parameter.startswith(head_prefixes)):
            unused.append(name)
        elif differs:
            what = f"{source}: {name} does not have the shape that config.json says"
            raise ModelError(what, got=shape, expected=model_shapes[parameter])
        elif parameter in names.values():
            raise ModelError(f"{source} holds {parameter} under two names", got=name)
        else:
            names[name] = parameter
    new = sorted(set(model_shapes) - set(names.values()))
    missing = [name for name in new if not name.startswith(head_prefixes)]
    if missing:
        what = f"{source} lacks {len(missing)} weights of the encoder"
        got = f"{', '.join(sorted(file_shapes)):.120}"
        do = "check that config.json and the weights belong together"
        raise ModelError(what, got=got, expected=f"{', '.join(missing):.120}", do=do)
    if extra_layers := [name for name in unused if re.search(r"\blayers?\.\d+\.", name)]:
        what = f"{source} holds layers that config.json does not count"
        raise ModelError(what, got=extra_layers[0], do="correct the number of layers there")
    unused = [name for name in unused if not any(part in name for part in UNUSED_WITHOUT_MENTION)]
    return names, LoadReport(source, len(names), new, unused)
