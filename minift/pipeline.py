"""`pipeline("text-classification", model=path)`: the labels of texts, by name, after training.

Scores are those of transformers: softmax over the classes, a sigmoid for each class where a text
can have several, and the bare number for regression. They are computed in fp32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from minift.device import Device, choose_device
from minift.errors import ArgumentError, ConfigError
from minift.models.auto import AutoModelForSequenceClassification
from minift.plugins import default_manager
from minift.tokenizer import AutoTokenizer, Tokenizer
from minift.training.batches import split_into_batches

TopK = int | Literal["best", "same"] | None


class TextClassificationPipeline:
    """A classifier of texts; call it with a text, a pair, or a list of these."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, device: Device, batch_size: int, top_k: TopK
    ) -> None:
        self.config = model.config
        self.model = device.prepare(model).eval()
        self.tokenizer, self.device, self.batch_size = tokenizer, device, batch_size
        self.top_k = top_k

    def __call__(
        self, inputs: Any, top_k: TopK = "same", batch_size: int | None = None,
        truncation: bool = True, max_length: int | None = None,
    ) -> Any:  # fmt: skip
        """
        Args:
            inputs: a string; {"text": ..., "text_pair": ...}; or a list of either.
            top_k: how many labels to return for each text, best first; None for all; "best" for
                the best one without a list around it; "same" as `pipeline` was told.
            batch_size: instead of the pipeline's. It changes no score.
            truncation: cut texts to `max_length` tokens, by default to what the model takes.

        Returns:
            For one text or pair a dict {"label", "score"}, or with top_k a list of these. For a
            list of inputs, a list of such results in their order. As in transformers, a single
            string gives [{"label", "score"}] if this call has no top_k.
        """
        is_single = isinstance(inputs, str | dict)
        texts, pairs = split_pairs([inputs] if is_single else list(inputs))
        scores = self.scores(texts, pairs, batch_size, truncation, max_length)
        k = self.top_k if top_k == "same" else top_k
        results: list[Any] = []
        names = self.config.id2label
        for row in scores:
            order = np.argsort(-row, kind="stable")[: 1 if k == "best" else k]
            labels = [{"label": names[int(i)], "score": float(row[i])} for i in order]
            results.append(labels[0] if k == "best" else labels)
        in_list = isinstance(inputs, str) and top_k == "same"
        return results[0] if is_single and not in_list else results

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int | None = None,
        truncation: bool = True, max_length: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Return the scores of all labels, float32 of shape (texts, num_labels)."""
        encoded = self.tokenizer(texts, pairs, truncation=truncation, max_length=max_length)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        scores = np.zeros((len(texts), self.config.num_labels), np.float32)
        with torch.no_grad():  # not inference_mode, whose tensors not every backend has
            for rows in split_into_batches(order, batch_size or self.batch_size):
                columns = {name: [values[i] for i in rows] for name, values in encoded.items()}
                batch = self.tokenizer.pad(columns, return_tensors="pt").data
                (batch,) = self.device.batches([batch])
                logits = self.model(**batch).logits.float().cpu()  # (B, num_labels)
                scores[rows] = logits_to_scores(logits, self.config).numpy()
        return scores


def logits_to_scores(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Return scores from logits, both of shape (B, num_labels), by the problem type."""
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


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
    pairs: list[Any] = [row.get("text_pair") for row in rows]
    if all(pair is None for pair in pairs):
        return texts, None
    if None in pairs:
        raise ArgumentError("some inputs are pairs and some are not", do="pass one kind at a time")
    return texts, pairs


def pipeline(
    task: str, model: Any, tokenizer: Tokenizer | None = None, device: str = "auto",
    batch_size: int = 32, top_k: TopK = "best",
) -> TextClassificationPipeline:  # fmt: skip
    """Return a pipeline for a model, or for the folder or name of one.

    Args:
        task: "text-classification".
        model: a model object, or a folder, or the name of a model.
        tokenizer: needed with a model object.
        device: "auto", or as in `TrainingArguments`.
        batch_size: texts in a batch.
        top_k: how many labels for each text; see `TextClassificationPipeline.__call__`.

    Raises:
        ConfigError: there is no such pipeline.
    """
    if task not in ("text-classification", "sentiment-analysis"):
        raise ConfigError(f"no pipeline for {task!r}", expected="text-classification")
    if isinstance(model, str | Path):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        model = AutoModelForSequenceClassification.from_pretrained(model)
    if tokenizer is None:
        raise ArgumentError("a model object needs its tokenizer", do="pass tokenizer=")
    chosen = choose_device(device, default_manager())
    return TextClassificationPipeline(model, tokenizer, chosen, batch_size, top_k)
