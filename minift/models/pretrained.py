"""What is the same for every model: what it is given and gives back, its loss, how it is saved."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minift.errors import ConfigError, DataError
from minift.files import write_text
from minift.models.config import EncoderConfig
from minift.models.unpadding import Unpadding
from minift.models.weights import LoadReport, save_weights


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
        num_items: how many items it is over, a scalar tensor.
    """

    logits: Tensor
    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    num_items: Tensor | None = None

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        return tuple(v for v in (self.loss, self.logits) if v is not None)[key]


# ------------------------------------------------------------------------------------- the models


class PretrainedModel(nn.Module):
    """What all models share: a configuration, a report of their loading, a way to save them."""

    base_model_prefix = ""
    head_prefixes: tuple[str, ...] = ()  # beginnings of the parameters that a file may lack
    load_report: LoadReport | None = None

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill a new parameter, which is zeros: a weight from N(0, initializer_range), no bias."""
        if not name.endswith("bias"):
            tensor.normal_(0.0, self.config.initializer_range, generator=generator)

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
        dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
        said = {**self.config.to_dict(), "architectures": [type(self).__name__], "dtype": dtype}
        said.pop("torch_dtype", None)
        write_text(folder / "config.json", json.dumps(said, indent=2))


# ----------------------------------------------------------------------------- inputs and the loss


def check_inputs(
    config: EncoderConfig,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    unpadding: Unpadding | None,
) -> Tensor:
    """The mask, of ones if there is none, after a look at shapes and, where that is free, values.

    Unpadding flattens the blocks, so one of another shape would be read at the wrong places without
    any complaint from torch.
    """
    if not isinstance(input_ids, Tensor) or input_ids.is_floating_point():
        got = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise DataError("input_ids must be a tensor of whole numbers", got=got)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    blocks = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None:
        blocks["token_type_ids"] = token_type_ids
    shapes = {name: tuple(block.shape) for name, block in blocks.items()}
    if unpadding is not None:
        shapes["unpadding"] = unpadding.shape
    if input_ids.dim() != 2 or len(set(shapes.values())) > 1:
        raise DataError(
            "a batch must be blocks of one shape",
            got=", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            expected="(B, T) for each",
        )
    if not input_ids.numel():
        raise DataError("the batch is empty", got=shapes["input_ids"])
    if input_ids.shape[1] > config.max_seq_length:
        raise DataError(
            "a row is longer than the model's position table",
            got=f"{input_ids.shape[1]} tokens",
            expected=f"at most {config.max_seq_length}",
            do="tokenize with truncation=True",
        )
    if not input_ids.is_cpu:
        return attention_mask
    sizes = {"input_ids": config.vocab_size, "token_type_ids": config.type_vocab_size}
    for name, size in sizes.items():
        if name not in blocks or not size:  # DistilBERT knows no types and looks at none
            continue
        low, high = (int(end) for end in blocks[name].aminmax())
        if low < 0 or high >= size:
            raise DataError(
                f"{name} has a value that the model has no embedding for",
                got=low if low < 0 else high,
                expected=f"0 to {size - 1}",
                do="use the tokenizer that belongs to the model",
            )
    return attention_mask


def classifier_loss(
    logits: Tensor, labels: Tensor, problem_type: str, example_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(sum of losses, number of items), fp32; the mean over any split of rows is sum over number.

    Args:
        logits: (B, num_labels), fp32.
        labels: (B,) class numbers, -100 for an unlabelled row; (B,) or (B, 1) numbers for
            regression; (B, num_labels) of 0 and 1 for several labels a row.
        problem_type: "single_label_classification", "regression" or
            "multi_label_classification".
        example_mask: (B,), 0 for a row that only fills the batch up, else 1; None: all count.
    """
    if problem_type == "single_label_classification":
        labels = labels.view(-1).long()
        if example_mask is not None:
            labels = torch.where(example_mask > 0, labels, -100)
        loss = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        return loss, (labels != -100).sum()
    labels = labels.to(logits.dtype).view(logits.shape)
    if problem_type == "regression":
        losses = (logits - labels).square()
    else:
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if example_mask is None:
        return losses.sum(), torch.full((), losses.numel(), device=logits.device)
    return (losses * example_mask[:, None]).sum(), example_mask.sum() * losses.shape[1]


def check_targets(logits: Tensor, labels: Tensor, problem_type: str) -> None:
    """Labels that fit the logits in shape and type, and, where looking costs nothing, in value."""
    B, num_labels = logits.shape
    classes = problem_type == "single_label_classification"
    one_each = classes or (problem_type == "regression" and num_labels == 1)
    shapes = [(B,), (B, 1)] if one_each else [(B, num_labels)]
    if tuple(labels.shape) not in shapes or (classes and labels.is_floating_point()):
        raise DataError(
            f"the labels do not fit the model's {num_labels} outputs ({problem_type})",
            got=f"{labels.dtype} of shape {tuple(labels.shape)}",
            expected=f"{'integers' if classes else 'numbers'} of shape {shapes[0]}",
            do="pass num_labels= and problem_type= when the model is loaded, or other labels",
        )
    several = problem_type == "multi_label_classification" and labels.is_cpu
    if several and not bool(((labels >= 0) & (labels <= 1)).all()):
        ends = f"{labels.min().item():g} to {labels.max().item():g}"
        raise DataError("labels of several classes a row are 0 or 1", got=ends)
    if classes and labels.is_cpu and labels.numel():
        wrong = labels[(labels != -100) & ((labels < 0) | (labels >= num_labels))]
        if wrong.numel():
            raise DataError(
                "a label is a class that the model does not have",
                got=int(wrong[0]),
                expected=f"0 to {num_labels - 1}, or -100 for a row without a label",
                do=f"load the model with num_labels={int(labels.max()) + 1}"
                if wrong[0] > 0
                else "filter rows with negative labels out",
            )


def classifier_output(
    config: EncoderConfig, logits: Tensor, labels: Tensor | None, example_mask: Tensor | None = None
) -> SequenceClassifierOutput:
    """Logits in fp32, and, if there are labels, the loss.

    The kind of problem that labels decide is kept in the configuration: a saved model must say
    what its numbers mean. Shape and type decide, not values, so the order of rows does not.
    """
    logits = logits.float()
    if labels is None:
        return SequenceClassifierOutput(logits)
    if not isinstance(labels, Tensor):
        raise DataError("labels must be a tensor of numbers", got=type(labels).__name__)
    if config.problem_type is None:
        config.problem_type = infer_problem_type(logits.shape[-1], labels.is_floating_point())
    check_targets(logits, labels, config.problem_type)
    loss_sum, count = classifier_loss(logits, labels, config.problem_type, example_mask)
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
