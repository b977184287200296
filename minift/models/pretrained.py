"""What all models share: a configuration, the forms of their outputs, the checks of their inputs,
how they are saved."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minift.errors import DataError
from minift.files import local_path, write_text
from minift.models.config import EncoderConfig
from minift.models.unpadding import Unpadding
from minift.models.weights import LoadReport, model_tensors, save_weights

# What the outputs of models are, by number, of those that are there.
ORDER = "loss", "logits", "last_hidden_state", "pooler_output", "hidden_states", "attentions"


class ModelOutput:
    """An output by attribute, by name, and by number: that of a tuple of all that is not None."""

    def keys(self) -> list[str]:
        return [name for name in ORDER if getattr(self, name, None) is not None]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __contains__(self, key: str) -> bool:
        return key in self.keys()

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self, key, default)


@dataclass
class EncoderOutput(ModelOutput):
    """An encoder's output.

    Attributes:
        last_hidden_state: (B, T, H); zeros at padding, where nothing was computed (transformers
            has numbers there that mean nothing).
        pooler_output: (B, H), what a classifier reads, if the family has a pooler.
        hidden_states: where they are asked for, those before the first layer and behind each, a
            tuple of (B, T, H); zeros at padding.
        attentions: where they are asked for, the weights of each layer's attention, a tuple of
            (B, N, T, T): from each token (row) to each (column); zeros at padding. In training
            they are those behind dropout, as in transformers.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class SequenceClassifierOutput(ModelOutput):
    """A classifier's output; by number it is (loss, logits, hidden_states, attentions).

    Attributes:
        logits: (B, num_labels), fp32.
        loss: the mean over the labelled rows, or None without labels.
        loss_sum: the sum that `loss` is the mean of.
        num_items: how many items were summed, a scalar tensor.
        hidden_states, attentions: as in `EncoderOutput`.

    Whoever gives it another loss (`outputs.loss = ...`) takes the sum away: a Trainer then trains
    by that loss, the mean over its batch, instead of by a sum that nobody sees.
    """

    logits: Tensor
    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    num_items: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "loss":
            self.loss_sum = self.num_items = None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)


class PretrainedModel(nn.Module):
    """Base class of all models.

    Attributes:
        config: sizes, and the names of the classes.
        base_model_prefix: name of the encoder inside a model with a head, first part of the names
            of its parameters.
        head_prefixes: beginnings of the names of those parameters that a file may lack.
        load_report: what `from_pretrained` loaded.
    """

    base_model_prefix = ""
    head_prefixes: tuple[str, ...] = ()
    load_report: LoadReport | None = None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Initialise a new parameter, which is zeros: a weight from N(0, initializer_range)."""
        if not name.endswith("bias"):
            tensor.normal_(0.0, self.config.initializer_range, generator=generator)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table of token embeddings: the first table that a model makes."""
        return next(module for module in self.modules() if isinstance(module, nn.Embedding))

    @torch.no_grad()
    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Embedding:
        """Give the table of token embeddings another number of rows, after `add_tokens`.

        New rows are the mean of the old ones, so that a new token begins as an average word
        (Hewitt 2021, nlp.stanford.edu/~johnhew/vocab-expansion.html). The parameter stays the same
        object, so that whatever shares it (tied weights, an optimizer) has the new rows too.

        Args:
            new_num_tokens: `len(tokenizer)`; rows beyond it are removed. None: as many as now.
            pad_to_multiple_of: round the number up.

        Returns:
            The table, (new_num_tokens, E).

        Raises:
            ModelError: the padding token would have no row.
        """
        table = self.get_input_embeddings()
        old, multiple = table.weight, pad_to_multiple_of or 1
        size = -(-(len(old) if new_num_tokens is None else new_num_tokens) // multiple) * multiple
        replace(self.config, vocab_size=size)  # checks it
        self.config.vocab_size = size  # of the model and all its parts, which share it
        new = old.mean(0, keepdim=True).expand(max(size - len(old), 0), -1)
        old.data, old.grad = torch.cat([old[:size], new]), None
        table.num_embeddings = size
        return table

    def save_pretrained(
        self, save_directory: str | Path, tensors: dict[str, Tensor] | None = None
    ) -> None:
        """Write config.json and model.safetensors as transformers does, which can load them.

        Args:
            save_directory: a folder, created if it does not exist.
            tensors: the parameters in host memory, if they have been fetched already.
        """
        folder = local_path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if tensors is None:
            tensors = {n: p.detach().cpu().contiguous() for n, p in model_tensors(self).items()}
        save_weights(tensors, folder / "model.safetensors")
        dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
        entries = {**self.config.to_dict(), "architectures": [type(self).__name__], "dtype": dtype}
        entries.pop("torch_dtype", None)
        write_text(folder / "config.json", json.dumps(entries, indent=2))


def check_inputs(
    config: EncoderConfig, batch: tuple[Any, ...], unpadding: Unpadding | None,
    output_attentions: bool | None, output_hidden_states: bool | None,
) -> Unpadding:  # fmt: skip
    """Check the shapes of a batch and, where reading them is free, its values.

    Unpadding flattens tensors, so one of another shape would be read at the wrong places without
    any complaint from torch.

    Args:
        batch: input_ids, attention_mask, token_type_ids; the last two may be None.
        unpadding: of the attention mask, if it has been made already.
        output_attentions, output_hidden_states: what to show; None: what the configuration says.

    Returns:
        Where the real tokens are: `unpadding`, or else what the attention mask says; with a list
        for all that is to be shown.

    Raises:
        DataError: a shape, a type or a value does not fit the model.
    """
    input_ids, attention_mask, token_type_ids = batch
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point():
        got = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise DataError("input_ids must be a tensor of whole numbers", got=got)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
    inputs |= {"token_type_ids": token_type_ids, "unpadding": unpadding}
    shapes = {name: tuple(value.shape) for name, value in inputs.items() if value is not None}
    if input_ids.dim() != 2 or len(set(shapes.values())) > 1:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError("a batch must be blocks of one shape", got=got, expected="(B, T) for each")
    if not input_ids.numel():
        raise DataError("the batch is empty", got=shapes["input_ids"])
    if input_ids.shape[1] > config.max_seq_length:
        what = "a row is longer than the model's position table"
        got, expected = f"{input_ids.shape[1]} tokens", f"at most {config.max_seq_length}"
        raise DataError(what, got=got, expected=expected, do="tokenize with truncation=True")
    if input_ids.is_cpu:
        check_ids("input_ids", input_ids, config.vocab_size)
        if token_type_ids is not None and config.type_vocab_size:  # DistilBERT has no types
            check_ids("token_type_ids", token_type_ids, config.type_vocab_size)
    unpadding = Unpadding.from_mask(attention_mask) if unpadding is None else unpadding
    states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    weights = config.output_attentions if output_attentions is None else output_attentions
    asked = {"hidden_states": states, "attentions": weights}
    captured: dict[str, list[Tensor]] = {name: [] for name, yes in asked.items() if yes}
    return replace(unpadding, captured=captured) if captured else unpadding


def check_ids(name: str, ids: Tensor, size: int) -> None:
    """Check that a table of `size` embeddings has one for each id."""
    low, high = (int(end) for end in ids.aminmax())
    if low < 0 or high >= size:
        what = f"{name} has a value that the model has no embedding for"
        do = "use the tokenizer that belongs to the model"
        raise DataError(what, got=low if low < 0 else high, expected=f"0 to {size - 1}", do=do)
