"""`AutoConfig`, `AutoModel`, `AutoModelForSequenceClassification`: load a model from a folder."""

import json
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minift import rng
from minift.errors import ConfigError, MissingFileError, ModelError
from minift.files import read_json
from minift.models import bert, weights
from minift.models.config import EncoderConfig, label_names
from minift.models.pretrained import PretrainedModel
from minift.plugins import ResolvedCheckpoint, default_manager, registry, resolve_checkpoint


@dataclass(frozen=True)
class Family:
    """The classes of a model family: its configuration, its encoder, its sequence classifier."""

    config: type[EncoderConfig]
    encoder: type[PretrainedModel]
    classifier: type[PretrainedModel]


# {model_type: function that returns its family}, as `minift_register_model_families` adds others.
OWN = {"bert": lambda: Family(EncoderConfig, bert.BertModel, bert.BertForSequenceClassification)}


def find_family(model_type: str | None, path: Path) -> Family:
    """Return the family of a model_type, from minift itself or from a plugin.

    Raises:
        ModelError: there is none; lists all that there are.
    """
    families = registry(default_manager(), "minift_register_model_families", OWN)
    if isinstance(model_type, str) and model_type in families:
        return families[model_type].value()
    what = f"{path}: models of type {model_type!r} are not known"
    do = "install a plugin that brings this family (hook minift_register_model_families)"
    do = do if model_type else 'add a line to the file, for example "model_type": "bert",'
    raise ModelError(what, expected=", ".join(sorted(families)), do=do)


class AutoConfig:
    """`AutoConfig.from_pretrained(path_or_name)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> EncoderConfig:
        """Read the configuration in a model's folder.

        Raises:
            ModelError: there is no family of its model_type.
        """
        return read_config(resolve_checkpoint(str(name_or_path), revision, "config").folder)[0]


class AutoModel:
    """`AutoModel.from_pretrained(path_or_name)`: the encoder without a head."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path, revision: str | None = None,
        output_attentions: bool | None = None, output_hidden_states: bool | None = None,
    ) -> PretrainedModel:  # fmt: skip
        """Load the encoder; see `AutoModelForSequenceClassification` for the arguments."""
        checkpoint = resolve_checkpoint(str(name_or_path), revision)
        config, family = read_config(checkpoint.folder, output_attentions, output_hidden_states)
        return load_model(family.encoder, config, checkpoint)


class AutoModelForSequenceClassification:
    """`AutoModelForSequenceClassification.from_pretrained(path_or_name, num_labels=2)`."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path, num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None, label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None, revision: str | None = None, seed: int | None = None,
        output_attentions: bool | None = None, output_hidden_states: bool | None = None,
    ) -> PretrainedModel:  # fmt: skip
        """Load a pretrained encoder with a classifier on it.

        A head of another task stays unused, and so does one of another size if `num_labels` or
        label names ask for that; a new one is initialised from its own random stream. The report
        is printed if anything is new or unused, and kept in `model.load_report`.

        Args:
            name_or_path: a folder, or a name that a plugin finds.
            num_labels: how many classes; 1 for regression.
            id2label: {class number: name}.
            label2id: {name: class number}, instead.
            problem_type: see `classifier_loss`; by default the file's, for a head with as many
                labels, or else inferred from the type of the labels.
            revision: a version, for plugins.
            seed: of the new head; by default the one last set by `set_seed` or torch.manual_seed.
            output_attentions, output_hidden_states: whether all outputs have them, unless a call
                says otherwise; by default as in the file.

        Raises:
            ConfigError: num_labels, id2label and label2id contradict each other.
            ModelError, MissingFileError: the folder does not hold such a model.
        """
        checkpoint = resolve_checkpoint(str(name_or_path), revision)
        config, family = read_config(checkpoint.folder, output_attentions, output_hidden_states)
        names = dict(id2label or {})
        if label2id:
            numbers = {number: name for name, number in label2id.items()}
            names = names or numbers
            if len(numbers) < len(label2id) or label_names(names) != label_names(numbers):
                raise ConfigError("id2label and label2id disagree", got=f"{names} and {label2id}")
        new_head = bool(names or num_labels is not None)
        if num_labels is None:
            num_labels = len(names) or config.num_labels
        if num_labels < 1 or (names and len(names) != num_labels):
            got = f"{num_labels} and {len(names)} names"
            raise ConfigError("num_labels and the label names disagree", got=got)
        if num_labels != config.num_labels:
            config.problem_type = None  # was that of the head that is replaced
            names = names or {i: f"LABEL_{i}" for i in range(num_labels)}
        config.id2label = label_names(names or config.id2label)
        config.problem_type = problem_type or config.problem_type
        return load_model(family.classifier, config, checkpoint, seed, new_head)


def read_config(folder: Path, *asked: bool | None) -> tuple[EncoderConfig, Family]:
    """Read config.json, and find the family that it belongs to.

    Args:
        asked: output_attentions and output_hidden_states; None: what the file says.
    """
    path = folder / "config.json"
    if not path.is_file():
        got = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "an empty folder"
        raise MissingFileError(f"{folder} is not a model: it has no config.json", got=got)
    entries = read_json(path)
    family = find_family(model_type_of(entries), path)
    if entries.pop("auto_map", None):
        warnings.warn(f"{path} names Python code (auto_map), which is never run", stacklevel=4)
    names = "output_attentions", "output_hidden_states"
    entries |= {k: v for k, v in zip(names, asked, strict=False) if v is not None}
    return family.config.from_dict(entries), family


def model_type_of(entries: Mapping[str, Any]) -> Any:
    """Return the model_type of a config.json, or else that of its class: BertForMaskedLM is bert.

    Some published files are older than the key.
    """
    classes = json.dumps(entries.get("architectures"))  # a list of names, or anything
    found = re.search(r'"([A-Za-z0-9]+?)(For[A-Z]\w*|Model|PreTrainedModel)"', classes)
    return entries.get("model_type") or (found and found[1].lower())


def load_model(
    model_class: type[PretrainedModel], config: EncoderConfig, checkpoint: ResolvedCheckpoint,
    seed: int | None = None, new_head: bool = False,
) -> PretrainedModel:  # fmt: skip
    """Build the model without memory, then give each parameter its tensor.

    Args:
        seed, new_head: of the head, as in `AutoModelForSequenceClassification.from_pretrained`.
    """
    with torch.device("meta"):
        model = model_class(config)
    folder = checkpoint.folder
    file_shapes = weights.read_shapes(folder)
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    prefixes = model_class.base_model_prefix, model_class.head_prefixes
    names, report = weights.match_names(file_shapes, shapes, *prefixes, str(folder), new_head)
    tensors = weights.read_tensors(folder, names)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            what = f"{folder}: {name} holds numbers that are not finite"
            raise ModelError(what, do="take weights from before the training that broke them")
    tensors |= new_tensors({name: shapes[name] for name in report.new}, model, seed)
    model.load_state_dict(tensors, assign=True)
    report.source, report.revision = checkpoint.source or str(folder), checkpoint.revision
    model.load_report = report
    if report.new or report.unused:
        print(report, file=sys.stderr)
    return model.requires_grad_(True).eval()


def new_tensors(
    shapes: Mapping[str, tuple[int, ...]], model: PretrainedModel, seed: int | None
) -> dict[str, torch.Tensor]:
    """Initialise new parameters as the family does (`PretrainedModel.init_parameter`).

    Each has a random stream by its name: it does not depend on which others are new, and nobody
    else's random numbers change.
    """
    seed = torch.initial_seed() if seed is None else seed
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        model.init_parameter(name, tensor, rng.torch_generator(seed, f"head {name}"))
    return tensors
