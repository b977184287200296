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

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from minift.models.attention import attention, dropout, fused_linear
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
        """Map (P, H) to (P, H); with `first_only` to (B, H), the first position of each row."""
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
        return norm(dropout(down(inner), self.p, self.training) + x)


def add_submodule(module: nn.Module, path: str, child: nn.Module) -> None:
    """Add a module under a dotted path, with empty modules for the names before the last."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in module._modules:
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.add_module(name, child)


class Embeddings(nn.Module):
    """Token, position and type embeddings, summed and normalised: (B, T) ids to (P, E)."""

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
        x = self.word_embeddings(unpadding.unpad(ids))  # (P, E)
        if self.has_types:
            table = self.token_type_embeddings
            x = x + (table.weight[0] if types is None else table(unpadding.unpad(types)))
        x = x + self.position_embeddings(unpadding.unpad(positions))
        return dropout(self.LayerNorm(x), self.p, self.training)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: EncoderConfig, names: LayerNames) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, names) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, unpadding: Unpadding, first_only: bool = False) -> Tensor:
        """Map (P, H) to (P, H); with `first_only` to (B, H), the first position of each row."""
        last = len(self.layer) - 1
        for i, layer in enumerate(self.layer):
            x = layer(x, unpadding, first_only and i == last)
        return x[unpadding.first_token_index] if first_only and last < 0 else x


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
    ) -> EncoderOutput:  # fmt: skip
        x, unpadding = self.encode(input_ids, attention_mask, token_type_ids, unpadding)
        first = x[unpadding.first_token_index[unpadding.original_order]]  # (B, H)
        return EncoderOutput(unpadding.pad(x), self.pool(first))

    def encode(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None,
        unpadding: Unpadding | None, first_only: bool = False,
    ) -> tuple[Tensor, Unpadding]:  # fmt: skip
        """Return the hidden states (P, H) of the real tokens, or (B, H) of the first positions."""
        unpadding = check_inputs(self.config, input_ids, attention_mask, token_type_ids, unpadding)
        positions = self.positions(input_ids)  # (B, T)
        x = self.embeddings(input_ids, positions, token_type_ids, unpadding)  # (P, E)
        x = unpadding.append_extra(x)  # through all layers, P includes the extra tokens
        if "embeddings_project" in self._modules:
            x = self.embeddings_project(x)  # (P, H)
        x = self.get_submodule(self.encoder_name)(x, unpadding, first_only)
        num_tokens = len(unpadding.indices)
        return (x[unpadding.original_order] if first_only else x[:num_tokens]), unpadding

    def positions(self, input_ids: Tensor) -> Tensor:
        """Return for each position its row in the table of position embeddings, (B, T)."""
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)

    def pool(self, first: Tensor) -> Tensor | None:
        """Transform the first positions' states, (B, H) to (B, H), if the family has a pooler.

        The pooler was trained to tell whether the second sentence of a pair follows the first.
        """
        return torch.tanh(self.get_submodule("pooler.dense")(first)) if self.has_pooler else None
