"""The post-norm Transformer encoder of BERT and its family (Devlin et al. 2018, arXiv 1810.04805).

Axes, as they are named in the comments:

    B  rows of a batch          P  real tokens of the batch, padding left out
    T  positions of a row       N  attention heads
    H  hidden size              D  size of a head, H / N

Nothing is computed for padding (unpadding.py): everything but attention works on one token at a
time and runs on the P real tokens. For a classifier, which reads only the first position of each
row, the last layer computes keys and values for all tokens but everything else only at the first
positions. Neither changes a result, because only numbers that nobody reads are left out.

BERT is this encoder, and so are RoBERTa, ELECTRA and DistilBERT (plugins/minift_families). They
differ in data: the names of the parameters (`LayerNames`), some fields of the configuration, where
positions begin, and the head. Parameters have the names that they have in the family's files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minift.models.attention import attention, dropout, fused_linear, has_hooks
from minift.models.config import ACTIVATIONS, EncoderConfig
from minift.models.pretrained import EncoderOutput, PretrainedModel, check_inputs
from minift.models.unpadding import Unpadding


@dataclass(frozen=True)
class LayerNames:
    """Names of a layer's modules in a family's files; these are BERT's."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"


class Layer(nn.Module):
    """Attention among the tokens of each row, then a feed-forward network for each token."""

    def __init__(self, config: EncoderConfig, names: LayerNames) -> None:
        super().__init__()
        H, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        modules = {
            names.query: nn.Linear(H, H),
            names.key: nn.Linear(H, H),
            names.value: nn.Linear(H, H),
            names.out: nn.Linear(H, H),
            names.attention_norm: nn.LayerNorm(H, eps=eps),
            names.up: nn.Linear(H, inner),
            names.down: nn.Linear(inner, H),
            names.norm: nn.LayerNorm(H, eps=eps),
        }
        for path, module in modules.items():
            add_submodule(self, path, module)
        self.paths = list(modules)
        self.N, self.activation = config.num_attention_heads, ACTIVATIONS[config.hidden_act]
        self.p, self.p_attention = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        self.p_out = self.p if config.attention_output_dropout else 0.0

    def forward(self, x: Tensor, unpadding: Unpadding, first_only: bool = False) -> Tensor:
        """Map (P, H) to (P, H); with `first_only` to (B, H), the first position of each row.

        A batch (B, T, H) is mapped to (B, T, H).
        """
        is_batch = x.dim() == 3
        x = unpadding.append_extra(x) if is_batch else x
        query, key, value, out, attention_norm, up, down, norm = (
            self.get_submodule(path) for path in self.paths
        )
        p = self.p_attention if self.training else 0.0
        if first_only:
            residual = x[unpadding.first_token_index]  # (B, H)
            states = fused_linear(x, key, value)  # (P, 2H)
            context = attention(states, unpadding, self.N, p, query(residual))  # (B, H)
        else:
            residual = x
            states = fused_linear(x, query, key, value)  # (P, 3H)
            context = attention(states, unpadding, self.N, p)  # (P, H)
        # From here on (P, H), or (B, H). Both halves end alike: add the input, then normalise.
        x = attention_norm(dropout(out(context), self.p_out, self.training) + residual)
        inner = self.activation(up(x))  # (P, 4H), as a rule
        x = norm(dropout(down(inner), self.p, self.training) + x)
        return unpadding.pad(x) if is_batch else x


def add_submodule(module: nn.Module, path: str, child: nn.Module) -> None:
    """Add a module under a dotted path, with empty modules for the names before the last."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in module._modules:
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.add_module(name, child)


class Embeddings(nn.Module):
    """Token, position and type embeddings, summed and normalised: (B, T) ids to (P, E).

    Whoever watches this module, or one of its tables, with hooks sees (B, T, E).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        E = config.embedding_width  # E is H, except in small ELECTRAs
        self.word_embeddings = nn.Embedding(config.vocab_size, E, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, E)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, E)
        self.LayerNorm = nn.LayerNorm(E, eps=config.layer_norm_eps)
        self.p, self.has_types = config.hidden_dropout_prob, config.type_vocab_size > 0

    def forward(
        self, ids: Tensor, positions: Tensor, types: Tensor | None, unpadding: Unpadding
    ) -> Tensor:
        x = look_up(self.word_embeddings, ids, unpadding)  # (P, E)
        if self.has_types:
            table = self.token_type_embeddings
            types = torch.zeros_like(ids) if types is None and has_hooks(table) else types
            x = x + (table.weight[0] if types is None else look_up(table, types, unpadding))
        x = x + look_up(self.position_embeddings, positions, unpadding)
        x = dropout(self.LayerNorm(x), self.p, self.training)
        return unpadding.pad(x) if has_hooks(self) else x


def look_up(table: nn.Module, ids: Tensor, unpadding: Unpadding) -> Tensor:
    """Return the embeddings of ids (B, T), (P, E); a table with hooks is given the whole batch."""
    return unpadding.unpad(table(ids)) if has_hooks(table) else table(unpadding.unpad(ids))


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: EncoderConfig, names: LayerNames) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, names) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, unpadding: Unpadding, first_only: bool = False) -> Tensor:
        """See `run_layers`."""
        return run_layers(self.layer, x, unpadding, first_only, [unpadding] * len(self.layer))


def run_layers(
    layers: nn.ModuleList, x: Tensor, unpadding: Unpadding, first_only: bool,
    places: Sequence[Any], norm: nn.Module | None = None,
) -> Tensor:  # fmt: skip
    """Apply the layers of a model, record what is asked for, and take what the head reads.

    A layer that somebody watches with hooks is given the batch (B, T, H), in its own order, and
    returns such a batch. The last one is computed at the first positions only if nobody looks.

    Args:
        layers: take x, what `places` has for each, and `first_only`.
        x: (P, H), with extra tokens.
        first_only: return the first position of each row alone.
        places: for each layer where the tokens are: `unpadding`, and what its family needs.
        norm: follows the last layer.

    Returns:
        (P, H), without extra tokens; with `first_only` (B, H), in the order of the batch.
    """
    shorten = False
    for i, (layer, where) in enumerate(zip(layers, places, strict=True), start=1):
        unpadding.capture("hidden_states", x)
        watched = has_hooks(layer)
        shorten = first_only and i == len(layers) and not (unpadding.captured or watched)
        x = layer(unpadding.pad(x) if watched else x, where, shorten)
        x = unpadding.append_extra(x) if watched else x
    x = x if norm is None else norm(x)
    unpadding.capture("hidden_states", x)
    if not first_only:
        return x[: len(unpadding.indices)]
    order = unpadding.original_order
    return x[order if shorten else unpadding.first_token_index[order]]  # (B, H)


class EncoderModel(PretrainedModel):
    """Token ids to hidden states: what AutoModel loads, and what a classifier is built on.

    Attributes:
        layer_names: names of a layer's modules in the family's files.
        encoder_name: name of the stack of layers in the family's files.
        has_pooler: True if a layer transforms the first position's state for a classifier.
    """

    layer_names: ClassVar[LayerNames] = LayerNames()
    encoder_name: ClassVar[str] = "encoder"
    has_pooler: ClassVar[bool] = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        if config.embedding_width != config.hidden_size:
            self.embeddings_project = nn.Linear(config.embedding_width, config.hidden_size)
        self.add_module(self.encoder_name, Encoder(config, self.layer_names))
        if self.has_pooler:
            add_submodule(self, "pooler.dense", nn.Linear(config.hidden_size, config.hidden_size))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, unpadding: Unpadding | None = None,
        output_attentions: bool | None = None, output_hidden_states: bool | None = None,
    ) -> EncoderOutput:  # fmt: skip
        """Encode a batch; see `SequenceClassifier.forward` for the arguments."""
        batch = input_ids, attention_mask, token_type_ids
        asked = output_attentions, output_hidden_states
        unpadding = check_inputs(self.config, batch, unpadding, *asked)
        x = self.encode(batch, unpadding)
        pooled = self.pool(x[unpadding.first_token_index[unpadding.original_order]])  # (B, H)
        return EncoderOutput(unpadding.pad(x), pooled, **unpadding.shown(attention_mask))

    def encode(
        self, batch: tuple[Any, ...], unpadding: Unpadding, first_only: bool = False
    ) -> Tensor:
        """Return the hidden states (P, H) of the real tokens, or (B, H) of the first positions.

        Args:
            batch: input_ids, attention_mask and token_type_ids, (B, T) each, checked.
        """
        input_ids, _, token_type_ids = batch
        positions = self.positions(input_ids)  # (B, T)
        x = self.embeddings(input_ids, positions, token_type_ids, unpadding)  # (P, E)
        x = unpadding.append_extra(x)  # through all layers, P includes the extra tokens
        if "embeddings_project" in self._modules:
            x = self.embeddings_project(x)  # (P, H)
        return self.get_submodule(self.encoder_name)(x, unpadding, first_only)

    def positions(self, input_ids: Tensor) -> Tensor:
        """Return for each position its row in the table of position embeddings, (B, T)."""
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)

    def pool(self, first: Tensor) -> Tensor | None:
        """Transform the first positions' states, (B, H) to (B, H), if the family has a pooler.

        The pooler was trained to tell whether the second sentence of a pair follows the first.
        """
        return torch.tanh(self.get_submodule("pooler.dense")(first)) if self.has_pooler else None
