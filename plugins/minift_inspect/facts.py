"""The facts of one batch on its way through a model, gathered into a plain record.

`gather` is all that computes; the page (page.py) and the text (text.py) only read its record, which
is made of dicts, lists, numbers and strings, so that it can also be kept as JSON.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minift.data.dataset import Dataset
from minift.models.heads import classifier_loss, infer_problem_type
from minift.models.unpadding import Unpadding
from minift.optim import NO_DECAY, update
from minift.schedule import factor
from minift_inspect.attribution import integrated_gradients

Record = dict[str, Any]
KINDS = {"input_ids": "id", "token_type_ids": "type", "attention_mask": "mask"}


# How AdamW is used where no run says otherwise; the names are those of TrainingArguments.
USUAL: Record = {
    "learning_rate": 5e-5, "weight_decay": 0.0, "max_grad_norm": 1.0, "warmup_steps": 0,
    "lr_scheduler_type": "linear", "lr_scheduler_kwargs": None, "adam_beta1": 0.9,
    "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_steps": 1000,
}  # fmt: skip


def gather(
    model: Any, tokenizer: Any, rows: Dataset, columns: Sequence[str], labels: Sequence[Any] | None,
    focus: int, settings: Record, title: str, first: int = 0,
) -> Record:  # fmt: skip
    """Follow a batch through a classifier: fp32 on the host, without dropout.

    Args:
        model: in host memory; its gradients are cleared, its weights stay as they are.
        rows: of the batch, as they were loaded.
        columns: one column of text, or two.
        labels: of the rows, or None.
        focus: which row of the batch is looked at closely.
        title: what the batch is from.
        first: the number of its first row there.
    """
    texts = [rows[column][:] for column in columns]
    batch = dict(tokenizer(*texts, truncation=True, padding=True, return_tensors="pt"))
    unpadding = Unpadding.from_mask(batch["attention_mask"])
    was_training = model.training
    model.eval().zero_grad()
    out = model(**batch, output_hidden_states=True, output_attentions=True)
    config, at = model.config, batch["attention_mask"][focus].nonzero().flatten()  # real positions
    record: Record = {
        "title": title, "first": first, "focus": focus, "labels": list(config.id2label.values()),
        "model": describe(model), "columns": list(columns),
        "raw": [{key: plain(value) for key, value in row.items()} for row in rows],
        "tokens": tokens_of(tokenizer, batch), "padding": padding_of(unpadding),
        "stages": stages(batch, out, unpadding, config), "positions": at.tolist(),
        "norms": [digits(x[focus, at].norm(dim=-1)) for x in out.hidden_states],
        "attention": [digits(x[focus][:, at][:, :, at], 4) for x in out.attentions],
    }  # fmt: skip
    record["rows"], loss = losses_of(out.logits, labels, config)
    record["update"] = None if loss is None else updates_of(model, loss, settings)
    target = int(out.logits[focus].argmax()) if config.num_labels > 1 else 0
    one = {name: values[focus : focus + 1] for name, values in batch.items()}
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id} - {None}
    record["pulls"] = integrated_gradients(model, one, target, tokenizer.pad_token_id, special)
    record["pulls"]["pulls"] = [record["pulls"]["pulls"][i] for i in at.tolist()]
    model.train(was_training)
    model.zero_grad()
    return record


def plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)


def digits(x: Tensor, n: int = 5) -> Any:
    """Return nested lists of numbers with n digits, as they are shown."""
    return np.round(x.detach().double().numpy(), n).tolist()


def describe(model: Any) -> Record:
    config = model.config
    sizes = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads}
    sizes |= {"hidden size": config.hidden_size, "vocabulary": config.vocab_size}
    sizes["parameters"] = sum(p.numel() for p in model.parameters())
    return {"class": type(model).__name__, "sizes": sizes}


def tokens_of(tokenizer: Any, batch: dict[str, Tensor]) -> list[list[Record]]:
    """Return for each position of each row its token, id, type and mask, and if it is special."""
    kinds = {KINDS[name]: batch[name].tolist() for name in KINDS if name in batch}
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    return [
        [
            {"token": token, **{k: v[i][t] for k, v in kinds.items()}, "special": ids[t] in special}
            for t, token in enumerate(tokenizer.convert_ids_to_tokens(ids))
        ]
        for i, ids in enumerate(kinds["id"])
    ]


def padding_of(unpadding: Unpadding) -> Record:
    """Count what is computed, and what would be if the padded block were."""
    (B, T), P = unpadding.shape, len(unpadding.indices)
    blocks = [tuple(block.token_index.shape) for block in unpadding.blocks]
    scores = sum(b * t * t for b, t in blocks)
    return {
        "rows": B, "length": T, "cells": B * T, "tokens": P, "saved": 1 - P / (B * T),
        "blocks": [{"rows": b, "length": t} for b, t in blocks],
        "scores": scores, "scores_padded": B * T * T,
    }  # fmt: skip


def stages(batch: Record, out: Any, unpadding: Unpadding, config: Any) -> list[Record]:
    """Return the shape after each stage, as the model computes when nobody looks."""
    (B, T), P = unpadding.shape, len(unpadding.indices)
    H, N, L = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    blocks = " and ".join(
        f"({len(b.token_index)}, {N}, {b.token_index.shape[1]}, {H // N})" for b in unpadding.blocks
    )
    steps = [
        ("ids, padded", f"(B, T) = ({B}, {T})", "what the collator makes"),
        ("unpadded", f"(P) = ({P})", f"the real tokens of all rows; {B * T - P} cells left out"),
        ("embeddings", f"(P, H) = ({P}, {H})", "token, position and type, summed and normalised"),
        ("attention", f"(b, N, t, D) = {blocks}", "in blocks of rows of similar length"),
        (f"layers 1 to {L - 1}", f"(P, H) = ({P}, {H})", "attention and feed-forward network"),
        (f"layer {L}", f"(B, H) = ({B}, {H})", "only the first positions: no more is read"),
        ("logits", f"(B, labels) = {tuple(out.logits.shape)}", "the head, in the batch's order"),
    ]  # fmt: skip
    return [{"name": name, "shape": shape, "what": what} for name, shape, what in steps]


def losses_of(
    logits: Tensor, labels: Sequence[Any] | None, config: Any
) -> tuple[list[Record], Tensor | None]:
    """Return each row's label, prediction and loss, and the mean loss of the batch."""
    several, number = config.problem_type == "multi_label_classification", config.num_labels == 1
    scores = logits if number else logits.sigmoid() if several else logits.softmax(-1)
    guesses = [row[0] if number else int(np.argmax(row)) for row in scores.tolist()]
    found = zip(guesses, digits(scores), strict=True)
    rows: list[Record] = [{"prediction": guess, "scores": row} for guess, row in found]
    if labels is None:
        return rows, None
    target = torch.tensor(labels)
    kind = config.problem_type or infer_problem_type(config.num_labels, target.is_floating_point())
    sums = []
    for i, row in enumerate(rows):
        loss, count = classifier_loss(logits[i : i + 1], target[i : i + 1], kind)
        mean = round(float(loss.detach() / count), 5) if count else None
        row |= {"label": labels[i], "loss": mean}
        sums.append((loss, count))
    total, count = (sum(values) for values in zip(*sums, strict=True))
    return rows, total / count if count else None


def layer_of(name: str) -> str:
    """Return the part of a model that a parameter belongs to."""
    if number := re.search(r"\.layers?\.(\d+)\.", name):
        return f"layer {int(number[1]) + 1}"
    return "embeddings" if "embeddings" in name else "head"


def updates_of(model: Any, loss: Tensor, settings: Record) -> Record:
    """Compute gradients, and by layer what AdamW's first step at the full rate would change."""
    s = USUAL | settings
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norm = float(torch.stack([g.norm() for g in grads.values()]).norm())
    clip = min(1.0, s["max_grad_norm"] / (norm + 1e-6)) if s["max_grad_norm"] else 1.0
    rates = [s[name] for name in ("learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon")]
    parts: dict[str, np.ndarray] = {}  # sums of squares: of gradient, weight and update
    for name, g in grads.items():
        p, zeros = model.get_parameter(name).detach(), torch.zeros_like(g)
        decay = 0.0 if NO_DECAY.search(name) else s["weight_decay"]
        new, *_ = update(p, zeros, zeros, torch.zeros(()), g * clip, *(*rates, decay))
        squares = np.array([float(x.square().sum()) for x in (g, p, new - p)])
        parts[layer_of(name)] = parts.get(layer_of(name), 0.0) + squares
    layers = []
    for name, sums in parts.items():
        of_gradient, of_weight, of_update = np.sqrt(sums).tolist()
        share = of_update / (of_weight or 1.0)
        layers.append({"name": name, "gradient": of_gradient, "weight": of_weight,
                       "update": of_update, "share": share})  # fmt: skip
    rise, total, kind = s["warmup_steps"] or 0, s["max_steps"], s["lr_scheduler_type"]
    rise = round(rise * total) if rise < 1 else rise
    at = sorted({round(total * i / 50) for i in range(51)})
    points = [factor(kind, step, rise, total, **(s["lr_scheduler_kwargs"] or {})) for step in at]
    return {
        "loss": float(loss.detach()), "norm": norm, "clip": clip, "layers": layers, "name": kind,
        "schedule": [[100 * i / total, point] for i, point in zip(at, points, strict=True)],
        "rate": s["learning_rate"], "warmup": rise / total,
    }  # fmt: skip
