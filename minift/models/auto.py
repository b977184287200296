"""`AutoConfig`, `AutoModel`, `AutoModelForSequenceClassification`: a folder to a model."""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from minift import rng
from minift.errors import ConfigError, MissingFileError, ModelError
from minift.files import read_json
from minift.models import bert, weights
from minift.models.config import EncoderConfig, label_names
from minift.models.pretrained import PretrainedModel
from minift.plugins import (
    ResolvedCheckpoint,
    default_manager,
    find_checkpoint,
    locate_checkpoint,
    registry,
)


@dataclass(frozen=True)
class Family:
    """A kind of model: what reads its config.json, its encoder, its sequence classifier."""

    config: type[EncoderConfig]
    encoder: type[PretrainedModel]
    classifier: type[PretrainedModel]


# {model_type in config.json: the family}; plugins add others: `minift_register_model_families`.
FAMILIES = {"bert": Family(EncoderConfig, bert.BertModel, bert.BertForSequenceClassification)}


def find_family(model_type: str | None, path: Path) -> Family:
    """The family of a model_type, minift's own or a plugin's.

    Raises:
        ModelError: nobody knows it; lists those that are known.
    """
    from_plugins = registry(default_manager(), "minift_register_model_families")
    for name, found in from_plugins.items():
        if name in FAMILIES:
            raise ModelError(f"the plugin {found.plugin} brings {name!r}, which minift has itself")
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in from_plugins:
        return from_plugins[model_type].value()
    known = [*FAMILIES, *from_plugins]
    raise ModelError(
        f"{path}: models of type {model_type!r} are not known",
        expected=", ".join(sorted(known)),
        do="install a plugin that brings this family (hook minift_register_model_families)",
    )


class AutoConfig:
    """`AutoConfig.from_pretrained(path_or_name)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> EncoderConfig:
        """The configuration in a model's folder.

        Raises:
            ModelError: the model_type is none that minift knows.
        """
        return read_config(find_checkpoint(str(name_or_path), revision, "config"))[0]


class AutoModel:
    """`AutoModel.from_pretrained(path_or_name)`: the encoder without a head, for looking inside."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> PretrainedModel:
        found = locate_checkpoint(str(name_or_path), revision)
        config, family = read_config(found.folder)
        return load(found, config, family.encoder, seed=None)


class AutoModelForSequenceClassification:
    """`AutoModelForSequenceClassification.from_pretrained(path_or_name, num_labels=2)`."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None,
        revision: str | None = None,
        seed: int | None = None,
    ) -> PretrainedModel:
        """A classifier on a pretrained encoder.

        A head of another task is left in the file, and so is one of another size if `num_labels` or
        names ask for that; a new one is drawn from its own random stream. The report of what was
        loaded, new and left over is printed when anything is, and kept in `model.load_report`.

        Args:
            name_or_path: a folder, or a name that a plugin finds.
            num_labels: how many classes; 1 for regression.
            id2label: {class number: name}.
            label2id: the same the other way round.
            problem_type: see `classifier_loss`; by default what the file says of a head with as
                many labels, or else what the type of the labels shows.
            revision: a version, for plugins.
            seed: of the new head; by default what `set_seed` or torch.manual_seed last set.
        """
        found = locate_checkpoint(str(name_or_path), revision)
        config, family = read_config(found.folder)
        names = dict(id2label or {})
        if label2id:
            numbers = {number: name for name, number in label2id.items()}
            names = names or numbers
            if len(numbers) < len(label2id) or label_names(names) != label_names(numbers):
                raise ConfigError("id2label and label2id disagree", got=f"{names} and {label2id}")
        count = len(names) if num_labels is None else num_labels
        if (names and len(names) != count) or (num_labels is not None and num_labels < 1):
            raise ConfigError(
                "num_labels and the label names disagree", got=f"{num_labels} and {len(names)}"
            )
        if num_labels is not None and not names and num_labels != config.num_labels:
            names = {i: f"LABEL_{i}" for i in range(num_labels)}
        if names and len(names) != config.num_labels:
            config.problem_type = None  # was that of the head which now gives way
        if names:
            config.id2label = label_names(names)
        config.problem_type = problem_type or config.problem_type
        resize = bool(names or num_labels)
        return load(found, config, family.classifier, seed, resize)


def read_config(folder: Path) -> tuple[EncoderConfig, Family]:
    """config.json, and the family that it belongs to."""
    path = folder / "config.json"
    if not path.is_file():
        raise MissingFileError(
            f"{folder} is not a model",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "an empty folder",
            expected="config.json, model.safetensors and tokenizer.json",
        )
    said = read_json(path)
    family = find_family(said.get("model_type"), path)
    if said.pop("auto_map", None):
        warnings.warn(
            f"{path} names Python code of its own (auto_map), which is never run: minift's "
            f"{said['model_type']} is used",
            stacklevel=4,
        )
    return family.config.from_dict(said), family


def load(
    checkpoint: ResolvedCheckpoint,
    config: EncoderConfig,
    kind: type[PretrainedModel],
    seed: int | None,
    resize: bool = False,
) -> PretrainedModel:
    """Build the model without memory, then give each parameter its tensor."""
    with torch.device("meta"):
        model = kind(config)
    folder = checkpoint.folder
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    found = weights.read_shapes(folder)
    names, report = weights.match(
        found, shapes, kind.base_model_prefix, kind.head_prefixes, str(folder), resize
    )
    tensors = weights.read_tensors(folder, names)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            what = f"{folder}: {name} holds numbers that are not finite"
            raise ModelError(what, do="take weights from before the training that broke them")
    tensors |= new_tensors({name: shapes[name] for name in report.new}, model, seed)
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    report.source, report.revision = checkpoint.source or str(folder), checkpoint.revision
    model.load_report = report
    if report.new or report.unused:
        print(report, file=sys.stderr)
    return model.eval()


def new_tensors(
    shapes: Mapping[str, tuple[int, ...]], model: PretrainedModel, seed: int | None
) -> dict[str, torch.Tensor]:
    """A new head, drawn as the family was first trained (`PretrainedModel.init_parameter`).

    The streams are the head's own, so it moves nobody else's random numbers; each tensor has one
    by its name, so that none depends on which others are new.
    """
    base = torch.initial_seed() if seed is None else seed
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.zeros(shape)
        model.init_parameter(name, tensors[name], rng.torch_generator(base, f"head {name}"))
    return tensors
