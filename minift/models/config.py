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

from minift.errors import ConfigError, ModelError

POSITIVE = (
    *("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size"),
    "max_position_embeddings",
)
NOT_NEGATIVE = ("num_hidden_layers", "type_vocab_size")
MUST_BE = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}
PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    """GELU approximated by tanh, as in BERT's original code."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,  # the exact one, with erf
    "gelu_new": gelu_new,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


@dataclass
class EncoderConfig:
    """config.json: the sizes of a model and the names of its classes.

    Attributes:
        attribute_map: {field: its name in the family's files}, where they differ.
        attention_output_dropout: False if the family has no dropout behind attention.
        extra_entries: entries of the file that are no fields here, kept for saving.
    """

    attribute_map: ClassVar[Mapping[str, str]] = {}
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
    pad_token_id: int = 0
    classifier_dropout: float | None = None
    problem_type: str | None = None
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    extra_entries: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*POSITIVE, *NOT_NEGATIVE):
            value, minimum = getattr(self, name), int(name in POSITIVE)
            if not isinstance(value, int) or value < minimum:
                self.refuse(name, value, f"a whole number of at least {minimum}")
        for name in PROBABILITIES:
            p = getattr(self, name) or 0.0
            if not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
                self.refuse(name, p, "a probability, 0 to 1")
        if not 0 <= self.pad_token_id < self.vocab_size:
            self.refuse("pad_token_id", self.pad_token_id, f"0 to {self.vocab_size - 1}")
        if self.hidden_act not in ACTIVATIONS:
            raise ModelError("unknown activation", got=self.hidden_act, expected=list(ACTIVATIONS))
        if self.hidden_size % self.num_attention_heads:
            what = "the hidden size is not a multiple of the number of attention heads"
            raise ModelError(what, got=f"{self.hidden_size} and {self.num_attention_heads}")

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
        entries = {k: v for k, v in config_dict.items() if k not in cls.attribute_map.values()}
        entries |= mapped
        for name, expected in MUST_BE.items():
            if (value := entries.get(name) or expected) != expected:
                raise ModelError(f"{name} of the model", got=value, expected=expected)
        entries.pop("label2id", None)
        num_labels = entries.pop("num_labels", None) or 2
        names = entries.pop("id2label", None) or {i: f"LABEL_{i}" for i in range(num_labels)}
        entries["id2label"] = label_names(names)
        known = {f.name for f in fields(cls)} - {"extra_entries"}
        extra = {name: value for name, value in entries.items() if name not in known}
        values = {name: entries[name] for name in known if entries.get(name) is not None}
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
    if {str(number) for number in names} != {str(i) for i in range(len(names))}:
        what = "class numbers (id2label) must count from 0 without gaps"
        raise ConfigError(what, got=list(names), expected=list(range(len(names))))
    return dict(sorted((int(number), str(name)) for number, name in names.items()))
