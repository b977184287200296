"""`pipeline("text-classification", model=path)`: the labels of texts, by name, after training.

Scores are those of transformers: softmax over the classes, a sigmoid for each class where a text
can have several, and the bare number for regression. They are computed in fp32.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minift.device import Device, choose_device
from minift.errors import ArgumentError, ConfigError, nearest
from minift.models.auto import AutoModelForSequenceClassification
from minift.models.weights import unwrap
from minift.plugins import default_manager
from minift.settings import checked, choice
from minift.tokenizer import PADDING, AutoTokenizer, Tokenizer, one_of
from minift.training.batches import split_into_batches

Options = dict[str, Any]
# The options of a pipeline and of its calls, see `pipeline`.
OPTIONS: Options = {"top_k": "best", "batch_size": 32, "truncation": True, "max_length": None}
OPTIONS |= {"padding": True, "function_to_apply": "default"}
FUNCTIONS = choice("default", "softmax", "sigmoid", "none")


class TextClassificationPipeline:
    """A classifier of texts; call it with a text, a pair, or many of these."""

    def __init__(self, model: Any, tokenizer: Tokenizer, device: Device, options: Options) -> None:
        self.model = device.prepare(model).eval()
        self.config = unwrap(model).config
        self.tokenizer, self.device, self.options = tokenizer, device, options

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """
        Args:
            inputs: a string; {"text": ..., "text_pair": ...}; or a list, a column or an iterator
                of either.
            options: those of `pipeline`, where this call's are others.

        Returns:
            For one text or pair a dict {"label", "score"}, or with top_k a list of these. For many,
            a list of such results in their order; for an iterator another one, which reads a batch
            at a time. As in transformers, a single string gives [{"label", "score"}] if this call
            has no top_k.
        """
        chosen = with_changes(self.options, options)
        if isinstance(inputs, Iterator):
            batches = iter(lambda: list(itertools.islice(inputs, chosen["batch_size"] or 1)), [])
            return (result for batch in batches for result in self(batch, **options))
        is_single = isinstance(inputs, str | dict)
        texts, pairs = split_pairs([inputs] if is_single else list(inputs))
        results: list[Any] = []
        names, k = self.config.id2label, chosen["top_k"]
        for row in self.scores(texts, pairs, chosen):
            order = np.argsort(-row, kind="stable")[: 1 if k == "best" else k]
            labels = [{"label": names[int(i)], "score": float(row[i])} for i in order]
            results.append(labels[0] if k == "best" else labels)
        in_list = isinstance(inputs, str) and "top_k" not in options
        return results[0] if is_single and not in_list else results

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None, options: Options | None = None
    ) -> np.ndarray:
        """Return the scores of all labels, float32 of shape (texts, num_labels)."""
        chosen = with_changes(self.options, options or {})
        cut = {name: chosen[name] for name in ("truncation", "max_length")}
        encoded = self.tokenizer(texts, pairs, **cut)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        scores = np.zeros((len(texts), self.config.num_labels), np.float32)
        with torch.no_grad():  # not inference_mode, whose tensors not every backend has
            for rows in split_into_batches(order, chosen["batch_size"] or 1):
                columns = {name: [values[i] for i in rows] for name, values in encoded.items()}
                batch = self.tokenizer.pad(columns, return_tensors="pt").data
                (batch,) = self.device.batches([batch])
                logits = self.model(**batch).logits.float().cpu()  # (B, num_labels)
                scores[rows] = to_scores(logits, self.config, chosen["function_to_apply"]).numpy()
        return scores


def with_changes(options: Options, changes: Options) -> Options:
    """Return the options of a pipeline with those that its maker or a call changes.

    Raises:
        ArgumentError: there is no such option. ConfigError: it has no such value.
    """
    for name in set(changes) - set(OPTIONS):
        do = "top_k=None gives the scores of all labels" if "scores" in name else None
        raise ArgumentError(f"no option {name!r}", expected=nearest(name, OPTIONS), do=do)
    chosen = {**options, **changes}
    one_of(PADDING, chosen["padding"], "padding")
    checked("function_to_apply", chosen["function_to_apply"], [str, type(None)], FUNCTIONS)
    return chosen


def to_scores(logits: Tensor, config: Any, function: str | None) -> Tensor:
    """Return scores from logits, both of shape (B, num_labels); see FUNCTIONS."""
    if function in (None, "default") and config.problem_type != "regression":
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        function = "sigmoid" if several else "softmax"
    return {"sigmoid": logits.sigmoid(), "softmax": logits.softmax(-1)}.get(str(function), logits)


def split_pairs(inputs: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """Return the texts of strings or {"text", "text_pair"} dicts, and the second texts or None."""
    rows = [one if isinstance(one, dict) else {"text": one} for one in inputs]
    for i, row in enumerate(rows):
        strings = isinstance(row.get("text"), str) and isinstance(row.get("text_pair"), str | None)
        if not strings or set(row) - {"text", "text_pair"}:
            what = f"input {i} is no text and no pair of texts"
            expected = "a string, or {'text': .., 'text_pair': ..}"
            raise ArgumentError(what, got=f"{inputs[i]!r:.80}", expected=expected)
    texts: list[str] = [row["text"] for row in rows]
    pairs: list[str] = [row["text_pair"] for row in rows if row.get("text_pair") is not None]
    if len(pairs) not in (0, len(texts)):
        raise ArgumentError("some inputs are pairs and some are not", do="pass one kind at a time")
    return texts, pairs or None


def pipeline(
    task: str = "text-classification", model: Any = None,
    tokenizer: Tokenizer | str | Path | None = None, device: Any = "auto",
    revision: str | None = None, **options: Any,
) -> TextClassificationPipeline:  # fmt: skip
    """Return a pipeline for a model, or for the folder or name of one.

    Args:
        task: "text-classification".
        model: a model object, or a folder, or the name of a model.
        tokenizer: or its folder or name; by default the model's. A model object needs one.
        device: "auto", or as in `TrainingArguments`; or a torch.device; or as in transformers -1
            for the CPU and 0 for an accelerator, if there is one.
        revision: of the model, for plugins.
        options: each of them can also be an option of a call.
            top_k: how many labels to return for each text, best first; None for all; "best", the
                default, for the best one without a list around it.
            batch_size: texts in a batch, by default 32. It changes no score.
            truncation: cut texts to `max_length`, as is the default; see `Tokenizer.__call__`.
            max_length: in tokens; by default what the model takes.
            padding: taken for familiarity: texts are padded to the longest of a batch.
            function_to_apply: "softmax", "sigmoid" or "none", to get scores of logits; by default
                what fits the problem type.

    Raises:
        ConfigError: there is no such pipeline.
        ArgumentError: the model or its tokenizer is missing, or there is no such option.
    """
    if task not in ("text-classification", "sentiment-analysis"):
        raise ConfigError(f"no pipeline for {task!r}", expected="text-classification")
    chosen = with_changes(OPTIONS, options)
    if isinstance(model, str | Path):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model, revision)
        model = AutoModelForSequenceClassification.from_pretrained(model, revision=revision)
    if isinstance(tokenizer, str | Path):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    if model is None or tokenizer is None:
        what = "a pipeline needs a model, and a model object its tokenizer"
        raise ArgumentError(what, do="pass model= and tokenizer=")
    name = {None: "auto", 0: "auto", -1: "cpu"}.get(device, str(device))
    prepared = choose_device(name, default_manager())
    return TextClassificationPipeline(model, tokenizer, prepared, chosen)
