"""safetensors files to named tensors, and what became of each name.

No pickle is ever opened: a folder with only `pytorch_model.bin` is refused. Shapes are compared
with the model's before any of its memory is taken, and each name in the file ends in the report as
loaded, or left over; each parameter of the model as loaded, or newly initialised.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minift.errors import MissingFileError, ModelError
from minift.files import new_file, read_json

# In files, but not parameters of an encoder: a buffer of 0..511, and heads of other tasks.
LEFT_OVER_QUIETLY = (
    *("position_ids", "rotary_emb.", "pooler.", "cls.", "lm_head.", "vocab_", "qa_outputs."),
    *("mask_predictions.", "discriminator_predictions.", "generator_", "decoder."),
)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class LoadReport:
    """What `from_pretrained` did with each name.

    Attributes:
        source: the folder, or the name that a plugin found it by.
        revision: the exact version, if it has one.
        loaded: how many tensors were taken from the file.
        new: parameters that the file does not have (or has in another shape): initialised anew.
        unused: tensors in the file that the model does not have.
    """

    source: str
    loaded: int = 0
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    revision: str = ""

    def __str__(self) -> str:
        rows = [
            ("loaded from the file", f"{self.loaded} tensors"),
            ("newly initialised", ", ".join(self.new) or "none"),
            ("in the file, not used", ", ".join(self.unused) or "none"),
        ]
        lines = [f"weights of {self.source}"]
        lines += [f"  {what:<22} {which}" for what, which in rows]
        if self.new:
            lines.append("  New weights know nothing yet: train the model before you use it.")
        return "\n".join(lines)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, one or several with an index.

    Raises:
        MissingFileError: there are none; says what there is instead.
    """
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{index} has no weight_map", expected="{name: file}")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name:
                raise ModelError(f"{index} names a file outside its folder", got=name)
            if not (folder / name).is_file():
                raise MissingFileError(f"{folder / name} is missing", got=f"{index.name} lists it")
        return [folder / name for name in names]
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    raise MissingFileError(
        f"{folder} has no model.safetensors",
        got=", ".join(pickles) if pickles else "no weights",
        expected="model.safetensors, or shards with model.safetensors.index.json",
        do="convert it where you trust it: a .bin file is a pickle and can run any code"
        if pickles
        else "check the path",
    )


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """{name in the file: shape}, from the headers alone."""
    shapes = {}
    for path in weight_files(folder):
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def read_tensors(folder: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """{parameter: tensor} for `names`, {name in the file: parameter}; halves become fp32.

    The tensors are copies: those of the library are views of the file, and would change with it.

    Raises:
        ModelError: a tensor is quantised, so its numbers mean nothing without their scales.
    """
    tensors = {}
    for path in weight_files(folder):
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                if name not in names:
                    continue
                tensor = file.get_tensor(name)
                if tensor.dtype not in FLOATS:
                    raise ModelError(
                        f"{path}: {name} is quantised", got=tensor.dtype, expected=list(FLOATS)
                    )
                tensors[names[name]] = tensor.to(torch.float32, copy=True)
    return tensors


def opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a complete safetensors file: {error}",
            got=f"{path.stat().st_size:,} bytes",
            do="download or copy it again",
        ) from None


def match(
    file_shapes: Mapping[str, tuple[int, ...]],
    model_shapes: Mapping[str, tuple[int, ...]],
    prefix: str,
    head: tuple[str, ...],
    source: str,
    resize: bool = False,
) -> tuple[dict[str, str], LoadReport]:
    """Pair the names in a file with the parameters of a model.

    Args:
        file_shapes: {name in the file: shape}.
        model_shapes: {parameter: shape}.
        prefix: of the encoder inside the model, for example "bert."; a file may lack it.
        head: beginnings of the parameters that may be new (the head of another task).
        source: what the report calls the file.
        resize: whether a head of another size may give way to a new one.

    Returns:
        {name in the file: parameter}, and the report.

    Raises:
        ModelError: an encoder parameter is missing, is not counted by config.json, or has another
            shape than that says.
    """
    names: dict[str, str] = {}
    unused: list[str] = []
    for name, shape in file_shapes.items():
        plain = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        plain = plain.replace("LayerNorm.beta", "LayerNorm.bias")
        choices = (plain, prefix + plain, plain.removeprefix(prefix))
        parameter = next((choice for choice in choices if choice in model_shapes), None)
        other = parameter is not None and shape != model_shapes[parameter]
        if parameter is None or (other and resize and parameter.startswith(head)):
            unused.append(name)
        elif shape != model_shapes[parameter]:
            raise ModelError(
                f"{source}: {name} does not have the shape that config.json says",
                got=shape,
                expected=model_shapes[parameter],
            )
        elif parameter in names.values():
            raise ModelError(f"{source} holds {parameter} under two names", got=name)
        else:
            names[name] = parameter
    new = sorted(set(model_shapes) - set(names.values()))
    missing = [name for name in new if not name.startswith(head)]
    if missing:
        raise ModelError(
            f"{source} lacks {len(missing)} weights of the encoder",
            got=", ".join(sorted(file_shapes)[:3]) + ", ...",
            expected=", ".join(missing[:3]) + (", ..." if len(missing) > 3 else ""),
            do="check that config.json and the weights belong together",
        )
    if beyond := [name for name in unused if re.search(r"\blayers?\.\d+\.", name)]:
        raise ModelError(
            f"{source} holds layers that config.json does not count",
            got=beyond[0],
            do="correct the number of layers there",
        )
    shown = [name for name in unused if not any(part in name for part in LEFT_OVER_QUIETLY)]
    return names, LoadReport(source, len(names), new, shown)


def save_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file so that it is there whole or not at all."""
    with new_file(path) as scratch:
        save_file(dict(tensors), scratch, metadata={"format": "pt"})
