"""Sequence classification: a head on an encoder, its loss, and the checks of its labels."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from minift.errors import ConfigError, DataError
from minift.models.config import EncoderConfig
from minift.models.pretrained import PretrainedModel, SequenceClassifierOutput, check_inputs
from minift.models.unpadding import Unpadding


class SequenceClassifier(PretrainedModel):
    """An encoder and a head that gives one or several numbers for each row.

    A family defines `encoder`, the class of its encoder, and `classify`; perhaps `summarize`.
    """

    encoder: ClassVar[type[PretrainedModel]]

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.encoder(config))
        if config.num_labels == 1 and config.problem_type == "single_label_classification":
            what = "the labels of a model with one output are not those of a classification"
            do = "pass num_labels=2, or problem_type='regression' for one number"
            raise ConfigError(what, got=f"num_labels=1, {config.problem_type}", do=do)
        p = config.classifier_dropout
        self.p = config.hidden_dropout_prob if p is None else p

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None, labels: Tensor | None = None,
        unpadding: Unpadding | None = None, example_mask: Tensor | None = None,
        output_attentions: bool | None = None, output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:  # fmt: skip
        """Compute logits, in fp32, and with labels the loss.

        The problem type that the labels imply is kept in the configuration, so that a saved model
        says what its numbers mean. It follows from shape and type, not from values, so the order of
        the rows does not matter.

        Args:
            input_ids, attention_mask, token_type_ids: (B, T), as a collator makes them.
            labels, example_mask: see `classifier_loss`.
            unpadding: of the attention mask, if it has been made on the host already.
            output_attentions, output_hidden_states: whether the output has them (the last layer is
                then computed at all positions); None: what the configuration says.
        """
        batch, config = (input_ids, attention_mask, token_type_ids), self.config
        unpadding = check_inputs(config, batch, unpadding, output_attentions, output_hidden_states)
        logits = self.classify(self.summarize(batch, unpadding)).float()  # (B, num_labels)
        shown = unpadding.shown(attention_mask)
        if labels is None:
            return SequenceClassifierOutput(logits, **shown)
        if not isinstance(labels, Tensor):
            raise DataError("labels must be a tensor of numbers", got=type(labels).__name__)
        if config.problem_type is None:
            config.problem_type = infer_problem_type(logits.shape[1], labels.is_floating_point())
        if not torch.compiler.is_compiling():
            check_labels(logits, labels, config.problem_type)
        loss_sum, num_items = classifier_loss(logits, labels, config.problem_type, example_mask)
        return SequenceClassifierOutput(logits, loss_sum / num_items, loss_sum, num_items, **shown)

    def summarize(self, batch: tuple[Any, ...], unpadding: Unpadding) -> Tensor:
        """Encode a batch to one state for each row, (B, H): that of the first position."""
        encoder: Any = self.get_submodule(self.base_model_prefix)
        return encoder.encode(batch, unpadding, first_only=True)

    def classify(self, summary: Tensor) -> Tensor:
        """Compute logits (B, num_labels) from what `summarize` returns."""
        raise NotImplementedError


def infer_problem_type(num_labels: int, float_labels: bool) -> str:
    """Derive the problem type from the model's outputs and the type of the labels.

    Raises:
        ConfigError: one output and whole numbers fit no type.
    """
    if num_labels > 1:
        return "multi_label_classification" if float_labels else "single_label_classification"
    if not float_labels:
        what = "one label with integer values is neither a class nor a number to predict"
        do = "make the labels floats for regression, or pass num_labels=2"
        raise ConfigError(what, do=do)
    return "regression"


def classifier_loss(
    logits: Tensor, labels: Tensor, problem_type: str, example_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute (sum of losses, number of items): the mean over any split of rows is their quotient.

    Args:
        logits: (B, num_labels), fp32.
        labels: (B,) class numbers, -100 for an unlabelled row; (B,) or (B, 1) numbers for
            regression; (B, num_labels) of 0 and 1 for several labels a row.
        problem_type: "single_label_classification", "regression" or
            "multi_label_classification".
        example_mask: (B,), 0 for a row that a device added to the batch, else 1; None: all count.
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


def check_labels(logits: Tensor, labels: Tensor, problem_type: str) -> None:
    """Check that labels fit the logits in shape and type and, where reading is free, in value.

    Raises:
        DataError: they do not.
    """
    B, num_labels = logits.shape
    classes = problem_type == "single_label_classification"
    one_each = classes or (problem_type == "regression" and num_labels == 1)
    shapes = [(B,), (B, 1)] if one_each else [(B, num_labels)]
    if tuple(labels.shape) not in shapes or (classes and labels.is_floating_point()):
        what = f"the labels do not fit the model's {num_labels} outputs ({problem_type})"
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        expected = f"{'integers' if classes else 'numbers'} of shape {shapes[0]}"
        do = "pass num_labels= and problem_type= when the model is loaded, or other labels"
        raise DataError(what, got=got, expected=expected, do=do)
    if not labels.is_cpu:
        return
    if problem_type == "multi_label_classification" and not ((labels >= 0) & (labels <= 1)).all():
        ends = f"{labels.min().item():g} to {labels.max().item():g}"
        raise DataError("labels of several classes a row are 0 or 1", got=ends)
    wrong = labels[(labels != -100) & ((labels < 0) | (labels >= num_labels))]
    if classes and wrong.numel():
        what = "a label is a class that the model does not have"
        expected = f"0 to {num_labels - 1}, or -100 for a row without a label"
        more = f"load the model with num_labels={int(labels.max()) + 1}"
        do = more if wrong[0] > 0 else "number classes from 0, and label rows without one -100"
        raise DataError(what, got=int(wrong[0]), expected=expected, do=do)
