"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): an encoder with what was learned since BERT.

It differs from BERT's layer (minift/models/encoder.py, which defines the axes) in these points:

- norms stand before each half of a layer, not behind it, so the residual x is never normalised;
- no table of positions: queries and keys are rotated by an angle that grows with the position, so
  that their product depends on the distance alone (RoPE, Su et al. 2021, arXiv 2104.09864);
- two layers of three attend no farther than 64 tokens to either side;
- the feed-forward network multiplies by a gate (GeGLU, Shazeer 2020, arXiv 2002.05202);
- linear layers and norms have no bias.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minift.errors import ModelError
from minift.models.attention import (
    attention,
    attention_biases,
    dropout,
    has_hooks,
    is_unmodified,
)
from minift.models.config import ACTIVATIONS, EncoderConfig
from minift.models.encoder import look_up, run_layers
from minift.models.heads import SequenceClassifier
from minift.models.pretrained import EncoderOutput, PretrainedModel, check_inputs
from minift.models.unpadding import Unpadding
from minift.settings import AT_LEAST_1, NOT_NEGATIVE, Range, choice

LOCAL, GLOBAL = "sliding_attention", "full_attention"
THETA = {LOCAL: 10_000.0, GLOBAL: 160_000.0}


@dataclass
class ModernBertConfig(EncoderConfig):
    """config.json of a ModernBERT.

    Attributes:
        layer_types: GLOBAL or LOCAL for each layer.
        rope_parameters: {GLOBAL or LOCAL: {"rope_theta": the base of its angles}}.
        local_attention: width of the window, both sides together.
        classifier_pooling: "cls" reads each row's first position, "mean" the mean of all.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **EncoderConfig.ranges,
        **dict.fromkeys(("local_attention", "global_attn_every_n_layers"), AT_LEAST_1),
        **dict.fromkeys(("embedding_dropout", "initializer_cutoff_factor"), NOT_NEGATIVE),
        "classifier_activation": EncoderConfig.ranges["hidden_act"],
        "classifier_pooling": choice("cls", "mean"),
    }
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_act": "hidden_activation",
        "layer_norm_eps": "norm_eps",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }

    model_type: str = "modernbert"
    vocab_size: int = 50368
    num_hidden_layers: int = 22
    intermediate_size: int = 1152
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    embedding_dropout: float = 0.0
    classifier_dropout: float = 0.0
    max_position_embeddings: int = 8192
    type_vocab_size: ClassVar[int] = 0  # type: ignore[misc]
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 50283
    initializer_cutoff_factor: float = 2.0
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    local_attention: int = 128
    layer_types: list[str] = field(default_factory=list)
    rope_parameters: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> Self:
        """Build a configuration; older files have three numbers for layer types and angles."""
        config = super().from_dict(config_dict)
        every = config_dict.get("global_attn_every_n_layers") or 3
        every = cls.checked_entry("global_attn_every_n_layers", every, [int])
        default = [LOCAL if i % every else GLOBAL for i in range(config.num_hidden_layers)]
        config.layer_types = config.layer_types or default
        older_names = {LOCAL: "local_rope_theta", GLOBAL: "global_rope_theta"}
        for layer_type, older_name in older_names.items():
            rope = dict(config.rope_parameters.get(layer_type) or {})
            if config_dict.get("rope_scaling") or rope.get("rope_type", "default") != "default":
                got = config_dict.get("rope_scaling") or rope["rope_type"]
                what = "ModernBERT with scaled rotary positions is not supported"
                raise ModelError(what, got=got, expected="default")
            theta = rope.get("rope_theta") or config_dict.get(older_name) or THETA[layer_type]
            theta = cls.checked_entry("rope_theta", theta, [float])
            rope |= {"rope_type": "default", "rope_theta": theta}
            config.rope_parameters[layer_type] = rope
        config.check()
        return config

    def check(self) -> None:
        """Refuse a model that the classes below cannot be."""
        if unknown := set(self.layer_types) - {LOCAL, GLOBAL}:
            self.refuse("layer_types", sorted(unknown), [LOCAL, GLOBAL])
        if (got := len(self.layer_types)) != (n := self.num_hidden_layers):
            raise ModelError("layer_types does not name every layer", got=got, expected=n)
        D = self.hidden_size // self.num_attention_heads
        if D % 2:
            raise ModelError("rotary positions need heads of an even size", got=D)


# ------------------------------------------------------------------------------------ the encoder


def angles(positions: Tensor, theta: float, D: int) -> tuple[Tensor, Tensor]:
    """Positions (P,) to cosines and sines (P, 1, 1, D): pair i of D/2 rotates by theta^(-2i/D)."""
    frequencies = 1.0 / theta ** (torch.arange(0, D, 2, device=positions.device).float() / D)
    half = positions[:, None].float() * frequencies  # (P, D/2)
    both = torch.cat([half, half], -1)[:, None, None]  # the two of a pair stand D/2 apart
    return both.cos(), both.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of numbers in (P, k, N, D) by its angle."""
    left, right = x.float().chunk(2, -1)
    return (x.float() * cos + torch.cat([-right, left], -1) * sin).to(x.dtype)


def window_biases(unpadding: Unpadding, positions: Tensor, window: int) -> list[Tensor | None]:
    """`attention_biases`, (b, 1, t, t) each, that also hide what is farther than `window`."""
    biases = attention_biases(unpadding)
    if unpadding.shape[1] - 1 <= window:
        return biases
    lowest = torch.finfo(torch.float32).min
    local: list[Tensor | None] = []
    for block, bias in zip(unpadding.blocks, biases, strict=True):
        at = positions[block.token_index]  # (b, t)
        far = (at[:, None, :, None] - at[:, None, None, :]).abs() > window  # (b, 1, t, t)
        base = torch.zeros(far.shape, device=far.device) if bias is None else bias.expand(far.shape)
        local.append(base.masked_fill(far, lowest))
    return local


class Positions(NamedTuple):
    """Where the tokens of a batch are, as layers of one type see it.

    Attributes:
        unpadding: the rows.
        rotation: `angles` of the tokens' positions.
        biases: what is added to the scores of each block, see `window_biases`.
    """

    unpadding: Unpadding
    rotation: tuple[Tensor, Tensor]
    biases: Sequence[Tensor | None]


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(D)) V with rotated queries and keys."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        H = config.hidden_size
        self.N, self.p = config.num_attention_heads, config.attention_probs_dropout_prob
        self.Wqkv = nn.Linear(H, 3 * H, bias=config.attention_bias)
        self.Wo = nn.Linear(H, H, bias=config.attention_bias)

    def forward(self, x: Tensor, where: Positions, first_only: bool) -> Tensor:
        """(P, H) to (P, H); with `first_only` to (B, H), the first position of each row."""
        unpadding, rotation, biases = where
        p = self.p if self.training else 0.0
        if first_only:
            states, query = self.keys_and_first_query(x, unpadding.first_token_index, rotation)
            biases = [None if bias is None else bias[:, :, :1] for bias in biases]
            context = attention(states, unpadding, self.N, p, query, biases)  # (B, H)
        else:
            qkv = self.Wqkv(x).view(len(x), 3, self.N, -1)  # (P, 3, N, D)
            states = torch.cat([rotate(qkv[:, :2], *rotation), qkv[:, 2:]], 1).flatten(1)  # (P, 3H)
            context = attention(states, unpadding, self.N, p, biases=biases)  # (P, H)
        return dropout(self.Wo(context), self.p, self.training)

    def keys_and_first_query(
        self, x: Tensor, first: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute keys and values of all tokens, (P, 2H), and queries of the first, (B, H)."""
        H = x.shape[1]
        if is_unmodified(self.Wqkv):
            weight, bias = self.Wqkv.weight, self.Wqkv.bias
            q_bias, kv_bias = (None, None) if bias is None else (bias[:H], bias[H:])
            query, kv = F.linear(x[first], weight[:H], q_bias), F.linear(x, weight[H:], kv_bias)
        else:  # it must be called as it is: all queries are computed, and most dropped
            qkv = self.Wqkv(x)
            query, kv = qkv[first, :H], qkv[:, H:]
        query, kv = query.view(len(first), 1, self.N, -1), kv.reshape(len(x), 2, self.N, -1)
        cos, sin = rotation
        kv = torch.cat([rotate(kv[:, :1], cos, sin), kv[:, 1:]], 1)  # (P, 2, N, D)
        return kv.flatten(1), rotate(query, cos[first], sin[first]).flatten(1)


class GatedMLP(nn.Module):
    """Wo(activation(a) * b), where a and b are the halves of Wi(x)."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        H, inner = config.hidden_size, config.intermediate_size
        self.Wi = nn.Linear(H, 2 * inner, bias=config.mlp_bias)
        self.Wo = nn.Linear(inner, H, bias=config.mlp_bias)
        self.p, self.activation = config.hidden_dropout_prob, ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        inner, gate = self.Wi(x).chunk(2, -1)  # (P, inner) each
        return self.Wo(dropout(self.activation(inner) * gate, self.p, self.training))


class Layer(nn.Module):
    """Attention, then the gated network, each with its norm before it."""

    def __init__(self, config: ModernBertConfig, number: int) -> None:
        super().__init__()
        # The first layer's input has just been normalised.
        self.attn_norm = norm(config) if number else nn.Identity()
        self.attn = Attention(config)
        self.mlp_norm = norm(config)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, where: Positions, first_only: bool) -> Tensor:
        """As minift's own: (P, H), or with `first_only` (B, H); of a batch (B, T, H) a batch."""
        is_batch = x.dim() == 3
        x = where.unpadding.append_extra(x) if is_batch else x
        residual = x[where.unpadding.first_token_index] if first_only else x
        x = residual + self.attn(self.attn_norm(x), where, first_only)
        x = x + self.mlp(self.mlp_norm(x))
        return where.unpadding.pad(x) if is_batch else x


def norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """Token embeddings, normalised: (B, T) ids to (P, H); with hooks to (B, T, H)."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.norm = norm(config)
        self.p = config.embedding_dropout

    def forward(self, input_ids: Tensor, unpadding: Unpadding) -> Tensor:
        x = self.norm(look_up(self.tok_embeddings, input_ids, unpadding))  # (P, H)
        x = dropout(x, self.p, self.training)
        return unpadding.pad(x) if has_hooks(self) else x


class ModernBertModel(PretrainedModel):
    """Token ids to hidden states."""

    base_model_prefix = "model"
    config: ModernBertConfig

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.final_norm = norm(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        unpadding: Unpadding | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> EncoderOutput:
        """Token types are accepted, as by other families, and ignored."""
        batch, asked = (input_ids, attention_mask, None), (output_attentions, output_hidden_states)
        unpadding = check_inputs(self.config, batch, unpadding, *asked)
        x = self.encode(batch, unpadding)
        return EncoderOutput(unpadding.pad(x), None, **unpadding.shown(attention_mask))

    def encode(
        self, batch: tuple[Any, ...], unpadding: Unpadding, first_only: bool = False
    ) -> Tensor:
        """Return the hidden states (P, H) of the real tokens, or (B, H) of the first positions."""
        config = self.config
        x = unpadding.append_extra(self.embeddings(batch[0], unpadding))  # (P, H), as in encoder
        positions = unpadding.append_extra(unpadding.indices % unpadding.shape[1])  # (P,)
        D, ropes = config.hidden_size // config.num_attention_heads, config.rope_parameters
        local = window_biases(unpadding, positions, config.local_attention // 2)
        where = {
            kind: Positions(unpadding, angles(positions, ropes[kind]["rope_theta"], D), biases)
            for kind, biases in ((LOCAL, local), (GLOBAL, attention_biases(unpadding)))
        }
        places = [where[kind] for kind in config.layer_types]
        return run_layers(self.layers, x, unpadding, first_only, places, self.final_norm)


# --------------------------------------------------------------------------------- the classifier


class Head(nn.Module):
    """Dense, activation, norm."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.norm = norm(config)
        self.activation = ACTIVATIONS[config.classifier_activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(x)))


class ModernBertForSequenceClassification(SequenceClassifier):
    """The first position, or the mean of all, through a hidden layer to the classes."""

    base_model_prefix = "model"
    head_prefixes = ("head.", "classifier.")
    encoder = ModernBertModel
    config: ModernBertConfig

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.head = Head(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def summarize(self, batch: tuple[Any, ...], unpadding: Unpadding) -> Tensor:
        """Encode a batch to one state for each row, (B, H)."""
        if self.config.classifier_pooling == "cls":
            return super().summarize(batch, unpadding)
        encoder: Any = self.model
        return mean(encoder.encode(batch, unpadding), unpadding, attention_mask=batch[1])

    def classify(self, summary: Tensor) -> Tensor:
        return self.classifier(dropout(self.head(summary), self.p, self.training))

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Initialise: truncated normals, narrower the deeper the model; norms with ones."""
        config = self.config
        if "norm" in name and name.endswith("weight"):
            tensor.fill_(1.0)
        elif name.endswith("weight"):
            std = config.initializer_range / math.sqrt(2.0 * config.num_hidden_layers)
            if name.startswith("classifier."):
                std = config.hidden_size**-0.5
            edge = config.initializer_cutoff_factor * std
            nn.init.trunc_normal_(tensor, 0.0, std, -edge, edge, generator=generator)


def mean(x: Tensor, unpadding: Unpadding, attention_mask: Tensor | None) -> Tensor:
    """The mean of each row's real tokens: (P, H) to (B, H)."""
    B, T = unpadding.shape
    weight = x.new_ones(len(x)) if attention_mask is None else unpadding.unpad(attention_mask).to(x)
    row = unpadding.indices // T  # (P,)
    total = x.new_zeros(B, x.shape[1]).index_add(0, row, x * weight[:, None])
    return total / x.new_zeros(B).index_add(0, row, weight)[:, None]
