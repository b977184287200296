"""config.json to the sizes of an encoder, and back.

The fields have BERT's names. A family that calls some of them otherwise says so in
`attribute_map`, and what its files leave unsaid in its own defaults; so the rest of the code knows
one configuration.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from minift.errors import ConfigError, ModelError

# What a size is at least; what is dropped with a probability.
SIZES = {
    "vocab_size": 1,
    "hidden_size": 1,
    "num_hidden_layers": 0,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "max_position_embeddings": 1,
    "type_vocab_size": 0,
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    """GELU by way of tanh, as BERT's first code had it."""
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
    """config.json: the sizes of a model and the names of its classes."""

    attribute_map: ClassVar[Mapping[str, str]] = {}  # {field: what the family's files call it}
    DROPS_ATTENTION: ClassVar[bool] = True  # whether the output of attention has dropout

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
    rest: dict[str, Any] = field(default_factory=dict)  # the file's other entries, kept for saving

    def __post_init__(self) -> None:
        for name, least in SIZES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                what = f"{self.attribute_map.get(name, name)} of the model does not fit"
                raise ModelError(what, got=value, expected=f"a whole number of at least {least}")
        for name in DROPOUTS:
            p = getattr(self, name) or 0.0
            if not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
                what = f"{self.attribute_map.get(name, name)} of the model does not fit"
                raise ModelError(what, got=p, expected="a probability, 0 to 1")
        if not 0 <= self.pad_token_id < self.vocab_size:
            what = "pad_token_id of the model is beyond its vocabulary"
            raise ModelError(what, got=self.pad_token_id, expected=f"0 to {self.vocab_size - 1}")
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                "the hidden size is not a multiple of the number of attention heads",
                got=f"{self.hidden_size} and {self.num_attention_heads}",
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ModelError("unknown activation", got=self.hidden_act, expected=list(ACTIVATIONS))

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
        """How many tokens a row may have."""
        return self.max_position_embeddings

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """From the content of config.json; what it does not say has the family's value."""
        own = {name: said[own] for name, own in cls.attribute_map.items() if own in said}
        said = {k: v for k, v in said.items() if k not in cls.attribute_map.values()} | own
        for name in ("is_decoder", "add_cross_attention"):
            if said.get(name):
                raise ModelError(f"config.json says {name}: true, which is not an encoder")
        if said.get("position_embedding_type", "absolute") != "absolute":
            raise ModelError(
                "position embeddings of this kind are not supported",
                got=said["position_embedding_type"],
                expected="absolute",
            )
        said.pop("label2id", None)
        count = said.pop("num_labels", None) or 2
        names = said.pop("id2label", None) or {i: f"LABEL_{i}" for i in range(count)}
        said["id2label"] = label_names(names)
        known = {f.name for f in fields(cls)} - {"rest"}
        rest = {name: value for name, value in said.items() if name not in known}
        fits = {name: said[name] for name in known if said.get(name) is not None}
        return cls(**fits, rest=rest)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, with the names that the family's files have."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rest"}
        known = {self.attribute_map.get(name, name): value for name, value in known.items()}
        return {**self.rest, **known, "label2id": self.label2id}


def label_names(names: Mapping[Any, str]) -> dict[int, str]:
    """{class number: name} in the order of the numbers, which JSON has as strings.

    Raises:
        ConfigError: the numbers are not 0, 1, 2, ...: there would be a logit without a name.
    """
    if {str(number) for number in names} != {str(i) for i in range(len(names))}:
        raise ConfigError(
            "class numbers (id2label) must count from 0 without gaps",
            got=list(names),
            expected=list(range(len(names))),
        )
    return dict(sorted((int(number), str(name)) for number, name in names.items()))
