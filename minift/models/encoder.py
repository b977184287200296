"""The post-norm Transformer encoder of BERT and its family (Devlin et al. 2018, arXiv 1810.04805).

Axes, as they are named in the comments:

    B  rows of a batch          P  real tokens of the whole batch, padding left out
    T  positions of a row       N  attention heads
    H  hidden size              D  size of a head, H / N

Nothing is computed for padding. Embeddings, linear layers, norms and activations run on the P real
tokens, one beside the other; only attention puts them back into the (B, T) block, because there a
token meets the others of its row. And the last layer computes keys and values for all tokens but
everything else only at the first position of each row, the one that a classifier reads. Both give
the numbers of the padded computation: what is left out would never have been read.

Names of modules are those of the weight files, so that a parameter is called what the file calls
it: `encoder.layer.0.attention.self.query.weight`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minift.data.storage import write_text
from minift.errors import ConfigError, DataError, ModelError
from minift.models.weights import LoadReport, save_weights

ACTIVATIONS = {
    "gelu": F.gelu,  # the exact one, with erf
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


@dataclass
class EncoderConfig:
    """config.json: the sizes of a model and the names of its classes."""

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

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        return {name: number for number, name in self.id2label.items()}

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> "EncoderConfig":
        """From the content of config.json; what it does not say has BERT's value."""
        said = dict(said)
        for name, refused in (("is_decoder", True), ("add_cross_attention", True)):
            if said.get(name) == refused:
                raise ModelError(f"config.json says {name}: {refused}, which is not an encoder")
        if said.get("position_embedding_type", "absolute") != "absolute":
            raise ModelError(
                "position embeddings of this kind are not supported",
                got=said["position_embedding_type"],
                expected="absolute",
            )
        if said.get("hidden_act", "gelu") not in ACTIVATIONS:
            raise ModelError(
                "unknown activation", got=said["hidden_act"], expected=list(ACTIVATIONS)
            )
        said.pop("label2id", None)
        count = said.pop("num_labels", 2)
        names = said.pop("id2label", None) or {i: f"LABEL_{i}" for i in range(count)}
        said["id2label"] = label_names(names)
        known = {f.name for f in fields(cls)} - {"rest"}
        rest = {name: value for name, value in said.items() if name not in known}
        return cls(**{name: value for name, value in said.items() if name in known}, rest=rest)

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rest"}
        return {**self.rest, **known, "label2id": self.label2id}


def label_names(names: Mapping[Any, str]) -> dict[int, str]:
    """{class number: name} in the order of the numbers, which JSON has as strings.

    Raises:
        ConfigError: the numbers are not 0, 1, 2, ...: there would be a logit without a name.
    """
    found = {int(number): str(name) for number, name in names.items()}
    if sorted(found) != list(range(len(found))):
        raise ConfigError(
            "class numbers must count from 0 without gaps",
            got=sorted(found),
            expected=list(range(len(found))),
        )
    return dict(sorted(found.items()))


@dataclass
class EncoderOutput:
    """What an encoder returns.

    Attributes:
        last_hidden_state: (B, T, H); where nothing was computed for padding it is zeros, where
            transformers has numbers that mean nothing.
        pooler_output: (B, H), what a classifier reads.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple(vars(self).values())[key]


@dataclass
class SequenceClassifierOutput:
    """What a classifier returns.

    Attributes:
        logits: (B, num_labels), fp32.
        loss: the mean over the labelled rows, or None without labels.
        loss_sum: the sum that `loss` is the mean of.
        count: how many items it is over, a scalar tensor.
    """

    logits: Tensor
    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    count: Tensor | None = None

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        return tuple(v for v in (self.loss, self.logits) if v is not None)[key]


# ------------------------------------------------------------------------------------ padding-free


@dataclass
class Rows:
    """Where the real tokens of a padded batch are.

    Attributes:
        shape: (B, T).
        index: (P,) positions of the tokens that are computed, in the flattened (B * T) block; None
            when all are (nothing is padded, or looking would make the host wait for the device).
        first: (B,) where the first position of each row is among the P tokens.
        bias: (B, 1, 1, T), 0 for a token that may be attended to and the lowest number for one
            that may not; None when nothing is masked.
    """

    shape: tuple[int, int]
    index: Tensor | None
    first: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, attention_mask: Tensor) -> "Rows":
        """From the mask (B, T): 1 for a token, 0 for padding, wherever in the row that is."""
        B, T = attention_mask.shape
        device = attention_mask.device
        real = attention_mask != 0
        every = torch.arange(B, device=device) * T
        if attention_mask.is_cpu and bool(real.all()):
            return cls((B, T), None, every, None)
        bias = torch.zeros(B, 1, 1, T, device=device)
        bias.masked_fill_(~real[:, None, None, :], torch.finfo(torch.float32).min)
        if not attention_mask.is_cpu:
            return cls((B, T), None, every, bias)
        read = real.clone()
        read[:, 0] = True  # the head reads it even if it is padding, as it is with padding left
        index = read.flatten().nonzero().squeeze(1)  # (P,)
        per_row = read.sum(1)
        return cls((B, T), index, per_row.cumsum(0) - per_row, bias)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T) to (P,)"""
        flat = padded.flatten()
        return flat if self.index is None else flat[self.index]

    def spread(self, packed: Tensor) -> Tensor:
        """(P, H) to (B, T, H), with zeros where nothing was computed."""
        B, T = self.shape
        if self.index is None:
            return packed.view(B, T, -1)
        block = packed.new_zeros(B * T, packed.shape[1])
        return block.index_copy(0, self.index, packed).view(B, T, -1)

    def gather(self, block: Tensor) -> Tensor:
        """(B, T, H) to (P, H), the way back."""
        flat = block.reshape(-1, block.shape[-1])
        return flat if self.index is None else flat.index_select(0, self.index)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability p, scale the others by 1/(1-p) (Srivastava et al. 2014).

    In host memory torch draws one random number an element, a fifth of a training step. Here 64
    random bits serve four elements, 16 for each: p is rounded to a multiple of 2**-16, and the
    scale is the exact inverse of the rounded probability.
    """
    if not training or p == 0.0:
        return x
    if not x.is_cpu:
        return F.dropout(x, p, training=True)
    dropped = round(p * 65536)
    if dropped == 65536:
        return x * 0.0
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64)
    bits.random_(-(2**63), None)  # all 64 bits
    pieces = bits.view(torch.int16)[: x.numel()].view(x.shape)  # uniform on -32768..32767
    keep = (pieces >= dropped - 32768).to(x.dtype).mul_(65536 / (65536 - dropped))
    return x * keep


# -------------------------------------------------------------------------------------- the layers


class Embeddings(nn.Module):
    """Token, position and type embeddings, summed and normalised: (B, T) ids to (P, H)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        H = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, H, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, H)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, H)
        self.LayerNorm = nn.LayerNorm(H, eps=config.layer_norm_eps)
        self.p = config.hidden_dropout_prob

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, rows: Rows) -> Tensor:
        B, T = rows.shape
        positions = torch.arange(T, device=input_ids.device).expand(B, T)  # (B, T)
        x = self.word_embeddings(rows.pack(input_ids))  # (P, H)
        if token_type_ids is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(rows.pack(token_type_ids))
        x = x + self.position_embeddings(rows.pack(positions))
        return dropout(self.LayerNorm(x), self.p, self.training)


class SelfAttention(nn.Module):
    """Every token of a row looks at every other (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        H = config.hidden_size
        self.N, self.p = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query, self.key, self.value = nn.Linear(H, H), nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, x: Tensor, rows: Rows, first_only: bool) -> Tensor:
        """(P, H) to (P, H), or with `first_only` to (B, H): the first position of each row."""
        B, T = rows.shape
        N, D = self.N, x.shape[-1] // self.N
        k = rows.spread(self.key(x)).view(B, T, N, D).permute(0, 2, 3, 1)  # (B, N, D, T)
        v = rows.spread(self.value(x)).view(B, T, N, D).transpose(1, 2)  # (B, N, T, D)
        if first_only:
            q = self.query(x[rows.first]).view(B, 1, N, D).transpose(1, 2)  # (B, N, 1, D)
        else:
            q = rows.spread(self.query(x)).view(B, T, N, D).transpose(1, 2)  # (B, N, T, D)
        scores = (q * D**-0.5) @ k  # (B, N, T or 1, T)
        if rows.bias is not None:
            scores = scores + rows.bias
        weights = dropout(scores.softmax(-1), self.p, self.training)
        context = (weights @ v).transpose(1, 2)  # (B, T or 1, N, D)
        if first_only:
            return context.reshape(B, N * D)
        return rows.gather(context.reshape(B, T, N * D))


class Dense(nn.Module):
    """A linear layer under the name that the files give it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class AddNorm(Dense):
    """Linear, dropout, add what came in before, normalise: how each half of a layer ends."""

    def __init__(self, inputs: int, config: EncoderConfig) -> None:
        super().__init__(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.p = config.hidden_dropout_prob

    def forward(self, x: Tensor, before: Tensor) -> Tensor:  # type: ignore[override]
        return self.LayerNorm(dropout(self.dense(x), self.p, self.training) + before)


class Attention(nn.Module):
    """Self-attention and its AddNorm, under the names of the files."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = AddNorm(config.hidden_size, config)

    def forward(self, x: Tensor, rows: Rows, first_only: bool) -> Tensor:
        before = x[rows.first] if first_only else x
        return self.output(self.self(x, rows, first_only), before)


class Layer(nn.Module):
    """Attention, then a feed-forward network on each token by itself."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Dense(config.hidden_size, config.intermediate_size)
        self.output = AddNorm(config.intermediate_size, config)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, rows: Rows, first_only: bool = False) -> Tensor:
        x = self.attention(x, rows, first_only)  # (P, H), or (B, H)
        return self.output(self.activation(self.intermediate(x)), x)


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, rows: Rows, first_only: bool = False) -> Tensor:
        """(P, H) to (P, H); with `first_only` to (B, H), the first position of each row."""
        last = len(self.layer) - 1
        for i, layer in enumerate(self.layer):
            x = layer(x, rows, first_only and i == last)
        return x[rows.first] if first_only and last < 0 else x


class PretrainedModel(nn.Module):
    """What all models share: a configuration, a report of their loading, a way to save them."""

    base_prefix = ""
    head: tuple[str, ...] = ()  # beginnings of the parameters that a file may lack
    load_report: LoadReport | None = None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    def save_pretrained(
        self, save_directory: str | Path, tensors: dict[str, Tensor] | None = None
    ) -> None:
        """Write config.json and model.safetensors as transformers does, and loads unchanged.

        Args:
            save_directory: a folder, made if it is not there.
            tensors: the parameters in host memory, if they have been fetched already.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if tensors is None:
            tensors = {n: p.detach().cpu().contiguous() for n, p in self.state_dict().items()}
        save_weights(tensors, folder / "model.safetensors")
        said = {**self.config.to_dict(), "architectures": [type(self).__name__], "dtype": "float32"}
        said.pop("torch_dtype", None)
        write_text(folder / "config.json", json.dumps(said, indent=2))


# ---------------------------------------------------------------------------------------- the loss


def check_inputs(
    config: EncoderConfig,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None,
) -> None:
    """Shapes, and, where looking costs nothing, values.

    Packing flattens the blocks, so one of another shape would be read at the wrong places without
    any complaint from torch.
    """
    blocks = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None:
        blocks["token_type_ids"] = token_type_ids
    shapes = {name: tuple(block.shape) for name, block in blocks.items()}
    if input_ids.dim() != 2 or len(set(shapes.values())) > 1:
        raise DataError(
            "a batch must be blocks of one shape",
            got=", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            expected="(B, T) for each",
        )
    if not input_ids.numel():
        raise DataError("the batch is empty", got=shapes["input_ids"])
    if input_ids.shape[1] > config.max_position_embeddings:
        raise DataError(
            "a row is longer than the model's position table",
            got=f"{input_ids.shape[1]} tokens",
            expected=f"at most {config.max_position_embeddings}",
            do="tokenize with truncation=True",
        )
    if not input_ids.is_cpu:
        return
    sizes = {"input_ids": config.vocab_size, "token_type_ids": config.type_vocab_size}
    for name, size in sizes.items():
        if name not in blocks:
            continue
        low, high = (int(end) for end in blocks[name].aminmax())
        if low < 0 or high >= size:
            raise DataError(
                f"{name} has a value that the model has no embedding for",
                got=low if low < 0 else high,
                expected=f"0 to {size - 1}",
                do="use the tokenizer that belongs to the model",
            )


def classifier_loss(logits: Tensor, labels: Tensor, problem_type: str) -> tuple[Tensor, Tensor]:
    """(sum of losses, number of items), fp32; the mean over any split of rows is sum over number.

    Args:
        logits: (B, num_labels), fp32.
        labels: (B,) class numbers, -100 for an unlabelled row; (B,) or (B, 1) numbers for
            regression; (B, num_labels) of 0 and 1 for several labels a row.
        problem_type: "single_label_classification", "regression" or
            "multi_label_classification".
    """
    if problem_type == "regression":
        error = logits.squeeze(-1) - labels.to(logits.dtype).view(logits.squeeze(-1).shape)
        return error.square().sum(), torch.tensor(error.numel(), device=logits.device)
    if problem_type == "multi_label_classification":
        loss = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")
        return loss, torch.tensor(labels.numel(), device=logits.device)
    loss = F.cross_entropy(logits, labels.view(-1), ignore_index=-100, reduction="sum")
    return loss, (labels != -100).sum()


def classifier_output(
    config: EncoderConfig, logits: Tensor, labels: Tensor | None
) -> SequenceClassifierOutput:
    """Logits in fp32, and, if there are labels, the loss.

    The kind of problem that labels decide is kept in the configuration: a saved model must say
    what its numbers mean. Shape and type decide, not values, so the order of rows does not.
    """
    logits = logits.float()
    if labels is None:
        return SequenceClassifierOutput(logits)
    if config.problem_type is None:
        config.problem_type = infer_problem_type(logits.shape[-1], labels.is_floating_point())
    loss_sum, count = classifier_loss(logits, labels, config.problem_type)
    return SequenceClassifierOutput(logits, loss_sum / count, loss_sum, count)


def infer_problem_type(num_labels: int, float_labels: bool) -> str:
    if num_labels == 1:
        if not float_labels:
            raise ConfigError(
                "one label with integer values is neither a class nor a number to predict",
                do="make the labels floats for regression, or pass num_labels=2",
            )
        return "regression"
    return "multi_label_classification" if float_labels else "single_label_classification"
