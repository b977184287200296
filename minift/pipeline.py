"""`pipeline("text-classification", model=path)`: texts to labels by name, after training.

Probabilities as the peer's: softmax over the classes, a sigmoid for each where a row can have
several, the bare number for regression. Computed in fp32.
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


class TextClassificationPipeline:
    """Call it with a text, a pair, or a list of these."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, device: Device, batch_size: int,
        top_k: int | Literal["best"] | None = "best",
    ) -> None:  # fmt: skip
        self.config = model.config
        self.model = device.prepare(model).eval()
        self.tokenizer, self.device, self.batch_size = tokenizer, device, batch_size
        self.top_k = top_k

    def __call__(
        self, inputs: Any, top_k: int | Literal["best", "same"] | None = "same",
        batch_size: int | None = None, truncation: bool = True, max_length: int | None = None,
    ) -> Any:  # fmt: skip
        """
        Args:
            inputs: a string; {"text": ..., "text_pair": ...}; or a list of either.
            top_k: how many labels for each text, best first; None for all. By default what
                `pipeline` was given, and if nothing, the best label and no list around it.
            batch_size: instead of the pipeline's; it changes no score.
            truncation: texts are cut to what the model takes, or to max_length tokens.

        Returns:
            For one text or pair a dict {"label", "score"}, or with top_k a list of those; for many
            a list of such answers, in their order. As the peer's, one string without top_k in this
            call is in a list of its own: [{"label", "score"}].
        """
        single = isinstance(inputs, str | dict)
        texts, pairs = unpaired([inputs] if single else list(inputs))
        k = self.top_k if top_k == "same" else top_k
        scores = self.scores(texts, pairs, batch_size, truncation, max_length)
        answers = [self._ranked(row, 1 if k == "best" else k) for row in scores]
        found: list[Any] = [answer[0] for answer in answers] if k == "best" else answers
        return found[0] if single and not (isinstance(inputs, str) and top_k == "same") else found

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None, batch_size: int | None = None,
        truncation: bool = True, max_length: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Probabilities (or the bare number, for regression), float32 of shape (texts, labels)."""
        seconds = None if pairs is None else list(pairs)
        encoded = self.tokenizer(list(texts), seconds, truncation=truncation, max_length=max_length)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        found = np.zeros((len(texts), self.config.num_labels), np.float32)
        with torch.no_grad():  # not every backend has tensors of inference_mode
            for rows in split_into_batches(order, batch_size or self.batch_size):
                columns = {name: [values[i] for i in rows] for name, values in encoded.items()}
                batch = dict(self.tokenizer.pad(columns, return_tensors="pt"))
                (batch,) = self.device.batches([batch])
                logits = self.model(**batch).logits.float().cpu()
                found[rows] = probabilities(logits, self.config).numpy()
        return found

    def _ranked(self, scores: np.ndarray, top_k: int | None) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable")[:top_k]
        names = self.config.id2label
        return [{"label": names[int(i)], "score": float(scores[i])} for i in order]


def probabilities(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """(B, num_labels) logits to scores, by the kind of problem."""
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def unpaired(items: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """Texts and second texts from strings or {"text", "text_pair"} dicts, all of one form."""
    rows = [item if isinstance(item, dict) else {"text": item} for item in items]
    for i, row in enumerate(rows):
        second = row.get("text_pair")
        strings = isinstance(row.get("text"), str) and isinstance(second, str | None)
        if not strings or set(row) - {"text", "text_pair"}:
            raise ArgumentError(
                f"input {i} is no text and no pair of texts",
                got=f"{items[i]!r:.80}",
                expected="a string, or {'text': .., 'text_pair': ..}",
            )
    texts: list[str] = [row["text"] for row in rows]
    seconds: list[Any] = [row.get("text_pair") for row in rows]
    if all(second is None for second in seconds):
        return texts, None
    if None in seconds:
        raise ArgumentError("some inputs are pairs and some are not", do="pass one kind at a time")
    return texts, seconds


def pipeline(
    task: str,
    model: Any,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
    batch_size: int = 32,
    top_k: int | Literal["best"] | None = "best",
) -> TextClassificationPipeline:
    """A pipeline for a model, or for the folder or name of one.

    Raises:
        ConfigError: minift has only "text-classification".
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
