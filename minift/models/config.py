"""config.json to the sizes of an encoder, and back.

The fields have BERT's names. A family whose files use other names lists these in `attribute_map`,
and overrides the defaults of what its files leave out; so the rest of the code sees one
configuration.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NoReturn, Self

import torch
import torch.nn.functional as F

from minift.errors import ConfigError, MiniftError, ModelError
from minift.settings import AT_LEAST_1, NOT_NEGATIVE, Range, checked, choice, types_of

MUST_BE = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
PROBABILITY = Range("a probability, 0 to 1", lambda p: 0 <= p <= 1)
# Transformers understands these in every family's files, whatever else they are called there.
COMMON_NAMES = {"hidden_size", "num_hidden_layers", "num_attention_heads"}


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    """GELU approximated by tanh, as in BERT's original code."""
    return F.gelu(x, approximate="tanh")


# By the names of transformers, which has several for one function; those with weights are left out.
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **dict.fromkeys(("gelu", "gelu_python"), F.gelu),  # the exact one, with erf
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate"), gelu_new),
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh"), gelu_new),
    "gelu_10": lambda x: F.gelu(x).clip(-10, 10),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    **dict.fromkeys(("silu", "swish"), F.silu),
    **{name: getattr(F, name) for name in ("relu", "relu6", "leaky_relu", "hardswish", "mish")},
    "relu2": lambda x: F.relu(x).square(),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}


@dataclass
class EncoderConfig:
    """config.json: the sizes of a model and the names of its classes.

    Attributes:
        attribute_map: {field: its name in the family's files}, where they differ.
        ranges: {entry: its values}, where not all of its type will do.
        attention_output_dropout: False if the family has no dropout behind attention.
        extra_entries: entries of the file that are no fields here, kept for saving.
    """

    attribute_map: ClassVar[Mapping[str, str]] = {}
    ranges: ClassVar[Mapping[str, Range]] = {
        **dict.fromkeys(("vocab_size", "hidden_size", "num_attention_heads"), AT_LEAST_1),
        **dict.fromkeys(("intermediate_size", "max_position_embeddings"), AT_LEAST_1),
        **dict.fromkeys(("type_vocab_size", "num_labels"), AT_LEAST_1),
        **dict.fromkeys(("initializer_range", "layer_norm_eps"), NOT_NEGATIVE),
        "problem_type": choice(*PROBLEM_TYPES),
        "num_hidden_layers": Range("a whole number, 0 or more", lambda n: n >= 0),
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), PROBABILITY),
        "classifier_dropout": PROBABILITY,
        "hidden_act": Range(f"an activation: {', '.join(ACTIVATIONS)}", ACTIVATIONS.__contains__),
    }
    attention_output_dropout: ClassVar[bool] = True

    model_type: str = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    problem_type: str | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    extra_entries: dict[str, Any] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field to a value that its type and its range allow, now and later."""
        types = {each.name: types_of(each.type) for each in fields(self)}.get(name)
        super().__setattr__(name, self.checked_entry(name, value, types) if types else value)

    def __post_init__(self) -> None:
        if not -self.vocab_size <= (self.pad_token_id or 0) < self.vocab_size:
            self.refuse("pad_token_id", self.pad_token_id, f"below {self.vocab_size}")
        if self.hidden_size % self.num_attention_heads:
            what = "hidden_size is not a multiple of num_attention_heads"
            raise ModelError(what, got=f"{self.hidden_size} and {self.num_attention_heads}")

    @classmethod
    def checked_entry(cls, name: str, value: Any, types: list[type]) -> Any:
        """Return an entry of config.json, if it has the right type and range.

        Raises:
            ModelError: it has not; names it as the family's files do.
        """
        try:
            return checked(cls.attribute_map.get(name, name), value, types, cls.ranges.get(name))
        except MiniftError as error:
            raise ModelError(error.what, do="correct the model's config.json") from None

    def refuse(self, name: str, value: object, expected: object) -> NoReturn:
        """Raise an error about a field, under its name in the family's files."""
        what = f"{self.attribute_map.get(name, name)} of the model does not fit"
        raise ModelError(what, got=value, expected=expected)

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        return {name: number for number, name in self.id2label.items()}

    @property
    def embedding_width(self) -> int:
        """The size of the embeddings, before they are projected to the hidden size."""
        return self.hidden_size

    @property
    def max_seq_length(self) -> int:
        """The number of tokens that a row may have."""
        return self.max_position_embeddings

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> Self:
        """Build a configuration from the content of config.json.

        Fields that it lacks get the family's default; entries that are no fields are kept.
        """
        mapped = {n: config_dict[own] for n, own in cls.attribute_map.items() if own in config_dict}
        others = {*cls.attribute_map, *cls.attribute_map.values()} - COMMON_NAMES
        entries = {k: v for k, v in config_dict.items() if k not in others} | mapped
        for name, expected in MUST_BE.items():
            if (value := entries.get(name) or expected) != expected:
                raise ModelError(f"{name} of the model", got=value, expected=expected)
        entries.pop("label2id", None)
        num_labels, names = entries.pop("num_labels", None), entries.pop("id2label", None)
        num_labels = cls.checked_entry("num_labels", num_labels, [int, type(None)])
        names = names or {number: f"LABEL_{number}" for number in range(num_labels or 2)}
        entries["id2label"] = label_names(names)
        known = {f.name: types_of(f.type) for f in fields(cls) if f.name != "extra_entries"}
        extra = {name: entries.pop(name) for name in list(entries) if name not in known}
        values = {n: v for n, v in entries.items() if v is not None or type(None) in known[n]}
        return cls(**values, extra_entries=extra)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json, under the names of the family's files."""
        names = [f.name for f in fields(self) if f.name != "extra_entries"]
        entries = {self.attribute_map.get(name, name): getattr(self, name) for name in names}
        return {**self.extra_entries, **entries, "label2id": self.label2id}


def label_names(names: Mapping[Any, str]) -> dict[int, str]:
    """Sort {class number: name} by the numbers, which are strings in JSON.

    Raises:
        ConfigError: the numbers are not 0, 1, 2, ...: there would be a logit without a name.
    """
    try:
        named = {int(str(number)): str(name) for number, name in names.items()}
    except (AttributeError, ValueError):  # it is a list, or its keys are no numbers
        named = {}
    if not named or sorted(named) != list(range(len(names))):
        what = "class numbers (id2label) must count from 0 without gaps"
        raise ConfigError(what, got=f"{names!r:.80}", expected="{0: name, 1: name, ...}")
    return dict(sorted(named.items()))
