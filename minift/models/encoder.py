"""The post-norm Transformer encoder of BERT and its family (Devlin et al. 2018, arXiv 1810.04805).

Axes, as they are named in the comments:

    B  rows of a batch          P  real tokens of the whole batch, padding left out
    T  positions of a row       N  attention heads
    H  hidden size              D  size of a head, H / N
    b, t  the same as B and T, of one block of rows of like length

Nothing is computed for padding (see unpadding.py): all that looks at one token at a time runs on
the P real tokens. And the last layer computes keys and values for all tokens but everything else
only at the first position of each row, the one that a classifier reads. Both give the numbers of
the padded computation: what is left out would never have been read.

BERT is this encoder, and so are RoBERTa, ELECTRA and DistilBERT (plugins/minift_families). What
differs is data: what the files call the parts (`LayerNames`), a few sizes in the configuration,
where positions begin, and the head. Parameters are called what the file calls them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minift.models.config import ACTIVATIONS, EncoderConfig
from minift.models.pretrained import (
    EncoderOutput,
    PretrainedModel,
    SequenceClassifierOutput,
    check_inputs,
    classifier_output,
)
from minift.models.unpadding import Unpadding

# ---------------------------------------------------------------------------------------- one layer


@dataclass(frozen=True)
class LayerNames:
    """What a family's files call the parts of a layer; these are BERT's names."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"


class Layer(nn.Module):
    """Every token looks at its row, then a feed-forward network at each token by itself."""

    def __init__(self, config: EncoderConfig, names: LayerNames) -> None:
        super().__init__()
        H, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        parts = {
            names.query: nn.Linear(H, H),
            names.key: nn.Linear(H, H),
            names.value: nn.Linear(H, H),
            names.out: nn.Linear(H, H),
            names.attention_norm: nn.LayerNorm(H, eps=eps),
            names.up: nn.Linear(H, inner),
            names.down: nn.Linear(inner, H),
            names.norm: nn.LayerNorm(H, eps=eps),
        }
        for path, part in parts.items():
            place(self, path, part)
        self.paths = list(parts)
        self.N, self.activation = config.num_attention_heads, ACTIVATIONS[config.hidden_act]
        self.p, self.p_attention = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        self.p_out = self.p if config.DROPS_ATTENTION else 0.0

    def forward(self, x: Tensor, unpadding: Unpadding, first_only: bool = False) -> Tensor:
        """(P, H) to (P, H); with `first_only` to (B, H), the first position of each row."""
        query, key, value, out, attention_norm, up, down, norm = (
            self.get_submodule(path) for path in self.paths
        )
        p = self.p_attention if self.training else 0.0
        if first_only:
            before = x[unpadding.first]  # (B, H)
            context = attention(
                side_by_side(x, key, value), unpadding, self.N, p, first=query(before)
            )
        else:
            before = x
            context = attention(side_by_side(x, query, key, value), unpadding, self.N, p)
        # From here on (P, H), or (B, H). Each half ends alike: add what came in, then normalise.
        x = attention_norm(dropout(out(context), self.p_out, self.training) + before)
        inner = self.activation(up(x))  # (P, 4H), as a rule
        return norm(dropout(down(inner), self.p, self.training) + x)


def place(module: nn.Module, path: str, part: nn.Module) -> None:
    """Put a part where a dotted path says, making the modules on the way."""
    *way, last = path.split(".")
    for name in way:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    module.add_module(last, part)


def side_by_side(x: Tensor, *layers: nn.Module) -> Tensor:
    """(P, H) through k linear layers to (P, k * H): one large product instead of k small ones."""
    if not all(is_plain(layer) for layer in layers):
        return torch.cat([layer(x) for layer in layers], 1)
    weight = torch.cat([layer.weight for layer in layers])  # type: ignore[misc]
    bias = torch.cat([layer.bias for layer in layers])  # type: ignore[misc]
    return F.linear(x, weight, bias)


def is_plain(layer: nn.Module) -> bool:
    """Whether a linear layer's parameters are all of it: nobody has replaced it or watches it."""
    if type(layer) is not nn.Linear or layer.bias is None or "forward" in vars(layer):
        return False
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    return not any((*hooks, layer._backward_pre_hooks, nn.modules.module._has_any_global_hook()))


def attention(
    states: Tensor,
    unpadding: Unpadding,
    N: int,
    p: float,
    first: Tensor | None = None,
    biases: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V within each row (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        states: (P, 3H), queries, keys and values of all tokens; (P, 2H), keys and values, if the
            queries are in `first`.
        unpadding: where the rows are.
        N: number of heads.
        p: dropout of the attention weights.
        first: (B, H), the queries of each row's first position, in the unpadding's order of rows.
        biases: what is added to the scores of each block, instead of the unpadding's own.

    Returns:
        (P, H), or (B, H) for `first`.
    """
    # A processor computes small products and softmax faster in fp32 than in halves.
    dtype = torch.promote_types(states.dtype, torch.float32) if states.is_cpu else states.dtype
    biases = unpadding.biases() if biases is None else biases
    spread = unpadding.split_heads(states, 3 if first is None else 2, N, dtype)
    rows = [len(parts[0]) for parts in spread]
    queries = [None] * len(spread) if first is None else first.to(dtype).split(rows)
    contexts = []
    with torch.autocast("cpu", enabled=False):
        for block, bias, few in zip(spread, biases, queries, strict=True):
            k, v = block[-2], block[-1]  # (b, N, t, D)
            q = block[0] if few is None else few.view(len(few), N, 1, -1)  # (b, N, t or 1, D)
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (b, N, t or 1, t)
            if bias is not None:
                scores += bias
            weights = dropout(scores.softmax(-1), p, training=True)
            contexts.append(weights.to(v.dtype) @ v)  # (b, N, t or 1, D)
    if first is None:
        return unpadding.merge_heads(contexts, states.dtype)
    return torch.cat([context.flatten(1) for context in contexts]).to(states.dtype)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability p, scale the others by 1/(1-p) (Srivastava et al. 2014).

    In host memory torch draws one random number an element, a fifth of a training step. Here 64
    random bits serve four elements, 16 for each: p is rounded to a multiple of 2**-16, and the
    scale is the exact inverse of the rounded probability. One number of torch's generator seeds
    the bits (SFC64: numpy's fastest stream), so they repeat when that is seeded.
    """
    if not training or p == 0.0:
        return x
    if not x.is_cpu or torch.compiler.is_compiling():
        return F.dropout(x, p, training=True)
    dropped = round(p * 65536)
    if dropped == 65536:
        return x * 0.0
    seed = int(torch.randint(2**63 - 1, ()))
    bits = np.random.SFC64(seed).random_raw((x.numel() + 3) // 4)
    keep = bits.view(np.uint16)[: x.numel()] >= dropped
    factor = keep * np.float32(65536 / (65536 - dropped))  # numpy is ten times as fast at this
    dropped_out = x * torch.from_numpy(factor).view(x.shape)  # fp32, also of halves
    # With autocast it may stay so: a sum in fp32 comes next.
    return dropped_out if torch.is_autocast_enabled("cpu") else dropped_out.to(x.dtype)


# -------------------------------------------------------------------------------- the whole encoder


class Embeddings(nn.Module):
    """Token, position and type embeddings, summed and normalised: (B, T) ids to (P, H)."""

    def __init__(self, config: EncoderConfig, padded_positions: bool) -> None:
        super().__init__()
        E, pad = config.embedding_width, config.pad_token_id  # E: H, but for small ELECTRAs
        self.word_embeddings = nn.Embedding(config.vocab_size, E, padding_idx=pad)
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings, E, padding_idx=pad if padded_positions else None
        )
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, E)
        self.LayerNorm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.p, self.typed = config.hidden_dropout_prob, config.type_vocab_size > 0

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        token_type_ids: Tensor | None,
        unpadding: Unpadding,
    ) -> Tensor:
        x = self.word_embeddings(unpadding.unpad(input_ids))  # (P, E)
        if self.typed and token_type_ids is not None:
            x = x + self.token_type_embeddings(unpadding.unpad(token_type_ids))
        elif self.typed:
            x = x + self.token_type_embeddings.weight[0]
        x = x + self.position_embeddings(unpadding.unpad(positions))
        return dropout(self.LayerNorm(x), self.p, self.training)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: EncoderConfig, names: LayerNames) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, names) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, unpadding: Unpadding, first_only: bool = False) -> Tensor:
        """(P, H) to (P, H); with `first_only` to (B, H), the first position of each row."""
        last = len(self.layer) - 1
        for i, layer in enumerate(self.layer):
            x = layer(x, unpadding, first_only and i == last)
        return x[unpadding.first] if first_only and last < 0 else x


class EncoderModel(PretrainedModel):
    """Token ids to hidden states: what AutoModel gives, and what a classifier stands on."""

    names: ClassVar[LayerNames] = LayerNames()
    stack: ClassVar[str] = "encoder"  # what the family's files call the stack of layers
    padded_positions: ClassVar[bool] = False  # RoBERTa's table of positions has a row for padding
    has_pooler: ClassVar[bool] = False  # whether a layer summarises the first position's state

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config, self.padded_positions)
        if config.embedding_width != config.hidden_size:
            self.embeddings_project = nn.Linear(config.embedding_width, config.hidden_size)
        self.add_module(self.stack, Encoder(config, self.names))
        if self.has_pooler:
            place(self, "pooler.dense", nn.Linear(config.hidden_size, config.hidden_size))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        unpadding: Unpadding | None = None,
    ) -> EncoderOutput:
        x, unpadding = self.encode(input_ids, attention_mask, token_type_ids, unpadding)
        return EncoderOutput(unpadding.pad(x), self.pool(x[unpadding.first][unpadding.back]))

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        unpadding: Unpadding | None,
        first_only: bool = False,
    ) -> tuple[Tensor, Unpadding]:
        """Hidden states (P, H) of the real tokens, or (B, H) of each row's first position."""
        checked = (input_ids, attention_mask, token_type_ids, unpadding)
        attention_mask = check_inputs(self.config, *checked)
        if unpadding is None:
            unpadding = Unpadding.of(attention_mask)
        positions = self.positions(input_ids)  # (B, T)
        x = self.embeddings(input_ids, positions, token_type_ids, unpadding)  # (P, E)
        x = unpadding.filled(x)  # from here on, within the layers, P means P + fill
        if "embeddings_project" in self._modules:
            x = self.embeddings_project(x)  # (P, H)
        x = self.get_submodule(self.stack)(x, unpadding, first_only)
        return (x[unpadding.back] if first_only else x[: len(unpadding.index)]), unpadding

    def positions(self, input_ids: Tensor) -> Tensor:
        """(B, T) rows of the table of positions."""
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)

    def pool(self, first: Tensor) -> Tensor | None:
        """The first position's state through a layer that was trained to say of a pair whether its
        second sentence follows the first: (B, H) to (B, H), if the family has such a layer."""
        return torch.tanh(self.get_submodule("pooler.dense")(first)) if self.has_pooler else None


class SequenceClassifier(PretrainedModel):
    """A class, or a number, for each row.

    `classify` is what a family adds to its encoder; `summarize` says what that is given.
    """

    encoder: ClassVar[type[PretrainedModel]]

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix.rstrip("."), self.encoder(config))
        given = config.classifier_dropout
        self.p = config.hidden_dropout_prob if given is None else given

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        unpadding: Unpadding | None = None,
        example_mask: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """
        Args:
            input_ids, attention_mask, token_type_ids: (B, T), as a collator makes them.
            labels, example_mask: see `classifier_loss`.
            unpadding: `Unpadding.of(attention_mask)`, if somebody has made it on the host already.
        """
        summary = self.summarize(input_ids, attention_mask, token_type_ids, unpadding)
        return classifier_output(self.config, self.classify(summary), labels, example_mask)

    def summarize(self, *batch: Any) -> Tensor:
        """A batch to one state a row, (B, H): that of the first position."""
        encoder: Any = self.get_submodule(self.base_model_prefix.rstrip("."))
        return encoder.encode(*batch, first_only=True)[0]

    def classify(self, summary: Tensor) -> Tensor:
        """(B, H), what `summarize` gives, to logits (B, num_labels)."""
        raise NotImplementedError
