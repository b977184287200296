"""What the kit computes with: a BERT that is made in a moment, rows, and runs of a few steps.

A row is [CLS, its own number, A or B, words ...]. The number shows where the row went; the label is
whether there is an A or a B, which can be learned in a few steps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minift import Dataset, Device, Trainer, TrainingArguments
from minift.models.bert import BertForSequenceClassification
from minift.models.config import EncoderConfig

CLS, A, B, WORDS, NUMBERS = 1, 2, 3, 4, 10  # token ids: words are 4 to 9, row i has the number 10+i

CONFIG = {
    "model_type": "bert",
    "vocab_size": 80,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,  # room for a device that pads to blocks of one length
}


def model(dropout: float = 0.0) -> BertForSequenceClassification:
    """The same random numbers every time, large enough that no layer's error is lost in the next.

    They are drawn by a generator of their own: those that a device seeds are what is tested.
    """
    p = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    made = BertForSequenceClassification(EncoderConfig.from_dict({**CONFIG, **p}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 or name.endswith("bias"):  # a norm's weight stays 1
                parameter.normal_(0.0, 0.1, generator=generator)
    return made


def rows(n: int, lengths: Sequence[int] = (4, 9, 6, 12, 5, 7)) -> Dataset:
    """`n` rows, at most 64, whose lengths follow one another as `lengths` says, over and over."""
    tokens, labels = [], []
    for i in range(n):
        label = (i * i + i // 3) % 2
        words = [WORDS + (i * k) % 6 for k in range(lengths[i % len(lengths)] - 3)]
        tokens.append([CLS, NUMBERS + i, A if label else B, *words])
        labels.append(label)
    return Dataset.from_dict({"input_ids": tokens, "labels": labels})


def collate(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """int64 `input_ids` and `attention_mask` (B, T), padded to the longest row; `labels` (B,)."""
    length = max(len(row["input_ids"]) for row in some)
    ids = torch.zeros(len(some), length, dtype=torch.int64)
    for i, row in enumerate(some):
        ids[i, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    labels = torch.tensor([row["labels"] for row in some])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def batches(n: int, size: int) -> list[dict[str, Any]]:
    """The first `n` rows in their order, `size` at a time; the last batch may be shorter."""
    data = rows(n)
    return [collate([data[k] for k in range(i, min(i + size, n))]) for i in range(0, n, size)]


def trainer(
    device: str,
    folder: Path | None = None,
    *,
    data: Dataset | None = None,
    dropout: float = 0.0,
    collator: Callable[[Any], dict[str, Any]] = collate,
    loss: Callable[..., Any] | None = None,
    callbacks: Sequence[object] = (),
    **settings: Any,
) -> Trainer:
    """A Trainer for six steps on a device, by its name; `settings` are those of the run."""
    usual = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    arguments = TrainingArguments(
        None if folder is None else str(folder), device=device, **{**usual, **settings}
    )
    return Trainer(
        model(dropout),
        arguments,
        data_collator=collator,
        train_dataset=rows(22) if data is None else data,
        callbacks=callbacks,
        loss=loss,
    )


def weights(trained: Trainer) -> dict[str, Tensor]:
    """The parameters in host memory; a copy, which further training leaves alone."""
    return copied(trained.run.device, trained.run.model)


def copied(device: Device, module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in device.to_host(dict(module.state_dict())).items()}


def logged(trained: Trainer, key: str) -> list[float]:
    """What the run logged under a name, record by record."""
    return [record[key] for record in trained.state.log_history if key in record]


def update(
    device: Device,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    max_norm: float = 0.0,
) -> dict[str, Any]:
    """One optimizer step of two micro-batches, of four rows and of three, in the loop's own order.

    Returns:
        logits (7, 2), losses (one sum a batch), norm, and the weights afterwards, in host memory.
    """
    module = device.prepare(model()).train()
    device.setup_precision("fp32")
    stepping = optimizer(module.parameters())
    parts = batches(7, 4)
    logits, losses, count = [], [], 0
    for i, batch in enumerate(device.batches(iter(parts), batch_size=4)):
        with device.autocast("fp32"):
            outputs = module(**batch)
        device.backward(outputs.loss_sum, last=i == len(parts) - 1)
        count = count + outputs.num_items
        host = device.to_host({"logits": outputs.logits})["logits"]
        logits.append(host[: len(parts[i]["labels"])])  # it may have been filled up
        losses.append(device.fetch({"loss": outputs.loss_sum})["loss"])
    norm = device.fetch({"norm": device.clip_grad_norm(stepping, max_norm, count)})["norm"]
    device.step(stepping)
    device.sync()
    after = copied(device, module)
    return {"logits": torch.cat(logits), "losses": losses, "norm": norm, "weights": after}
