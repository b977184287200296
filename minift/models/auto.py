"""`AutoConfig`, `AutoModel`, `AutoModelForSequenceClassification`: a folder to a model."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from minift import rng
from minift.errors import ConfigError, MissingFileError, ModelError, nearest
from minift.models import weights
from minift.models.bert import BertForSequenceClassification, BertModel
from minift.models.encoder import EncoderConfig, PretrainedModel, label_names
from minift.plugins import find_checkpoint
from minift.tokenizer import read_json

# {model_type in config.json: (the encoder, the sequence classifier)}
FAMILIES: dict[str, tuple[type[PretrainedModel], type[PretrainedModel]]] = {
    "bert": (BertModel, BertForSequenceClassification),
}


class AutoConfig:
    """`AutoConfig.from_pretrained(path_or_name)`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> EncoderConfig:
        """The configuration in a model's folder.

        Raises:
            ModelError: the model_type is none that minift knows.
        """
        return read_config(find_checkpoint(str(name_or_path), revision))


class AutoModel:
    """`AutoModel.from_pretrained(path_or_name)`: the encoder without a head, for looking inside."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, revision: str | None = None) -> PretrainedModel:
        folder = find_checkpoint(str(name_or_path), revision)
        config = read_config(folder)
        return load(folder, config, FAMILIES[config.model_type][0], seed=None)


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

        A head of another task, or of another number of labels, is left in the file; a new one is
        drawn from its own random stream. The report of what was loaded, new and left over is
        printed when something is new, and kept in `model.load_report`.

        Args:
            name_or_path: a folder, or a name that a plugin finds.
            num_labels: how many classes; 1 for regression.
            id2label: {class number: name}.
            label2id: the same the other way round.
            problem_type: see `classifier_loss`; by default what the file says of a head with as
                many labels, or else what the first labels show.
            revision: a version, for plugins.
            seed: of the new head; by default what `set_seed` or torch.manual_seed last set.
        """
        folder = find_checkpoint(str(name_or_path), revision)
        config = read_config(folder)
        names = dict(id2label or {})
        if label2id and not names:
            names = {number: name for name, number in label2id.items()}
        if num_labels is not None and names and len(names) != num_labels:
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
        return load(folder, config, FAMILIES[config.model_type][1], seed)


def read_config(folder: Path) -> EncoderConfig:
    """config.json, or an error that says which model types there are."""
    path = folder / "config.json"
    if not path.is_file():
        raise MissingFileError(
            f"{folder} is not a model",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "an empty folder",
            expected="config.json, model.safetensors and tokenizer.json",
        )
    said = read_json(path)
    kind = said.get("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"{path}: models of type {kind!r} are not known", expected=nearest(str(kind), FAMILIES)
        )
    return EncoderConfig.from_dict(said)


def load(
    folder: Path, config: EncoderConfig, kind: type[PretrainedModel], seed: int | None
) -> PretrainedModel:
    """Build the model without memory, then give each parameter its tensor."""
    with torch.device("meta"):
        model = kind(config)
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    found = weights.read_shapes(folder)
    names, report = weights.match(found, shapes, kind.base_prefix, kind.head, str(folder))
    tensors = weights.read_tensors(folder, names)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{folder}: {name} holds numbers that are not finite")
    tensors |= new_tensors({name: shapes[name] for name in report.new}, config, seed)
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.load_report = report
    if report.new:
        print(report, file=sys.stderr)
    return model.eval()


def new_tensors(
    shapes: Mapping[str, tuple[int, ...]], config: EncoderConfig, seed: int | None
) -> dict[str, torch.Tensor]:
    """A new head: weights from N(0, initializer_range), biases 0, as the family was first trained.

    The streams are the head's own, so it moves nobody else's random numbers; each tensor has one
    by its name, so that none depends on which others are new.
    """
    base = torch.initial_seed() if seed is None else seed
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.zeros(shape)
        if not name.endswith("bias"):
            generator = rng.torch_generator(base, f"head {name}")
            tensors[name].normal_(0.0, config.initializer_range, generator=generator)
    return tensors
