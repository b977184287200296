"""What a model shows of its inside against transformers' eager attention, on the same files.

BertViz and captum, which are written for models of transformers, are called as for those.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bertviz import head_view, model_view
from captum.attr import LayerActivation, LayerIntegratedGradients
from live import FAMILIES, ORDINARY, assert_near, batches_of, peer_model, random_plan
from minift_inspect.attribution import integrated_gradients

from minift import AutoModel, AutoModelForSequenceClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import make_model

EXACT = 1e-6
BOTH = {"output_hidden_states": True, "output_attentions": True}

each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(params=[(family, seed) for family in FAMILIES for seed in range(3)], ids=str)
def pair(request, tmp_path):
    """(the peers' classifier, minift's, batches)."""
    family, seed = request.param
    plan = random_plan(seed, family)
    theirs = peer_model(plan, seed, "eager", ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    return theirs, ours, batches_of(plan, seed)


def real(batch):
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]) if mask is None else mask


def compare_inside(got, want, batch, what):
    """All positions of all layers; where there is padding, zeros."""
    seen = real(batch)[:, None] != 0  # (B, 1, T)
    pairs = seen[..., None, :] & seen[..., None]  # (B, 1, T, T)
    assert len(got.hidden_states) == len(want.hidden_states)
    assert len(got.attentions) == len(want.attentions)
    for i, (ours, theirs) in enumerate(zip(got.hidden_states, want.hidden_states, strict=True)):
        assert_near(ours, theirs * seen.mT, f"{what}: hidden state {i}", EXACT, relative=True)
    for i, (ours, theirs) in enumerate(zip(got.attentions, want.attentions, strict=True)):
        assert_near(ours, theirs * pairs, f"{what}: attention {i}", EXACT)


def test_hidden_states_and_attentions(pair):
    theirs, ours, batches = pair
    for name, batch in batches:
        with torch.no_grad():
            got, want = ours(**batch, **BOTH), theirs(**batch, **BOTH)
        assert list(got.keys()) == list(want.keys())
        compare_inside(got, want, batch, name)
        assert_near(got.logits, want.logits, name, EXACT, relative=True)
        assert_near(got.to_tuple()[0], want.to_tuple()[0], "to_tuple", EXACT, relative=True)


def test_of_the_encoder_alone(pair, tmp_path):
    theirs, _, batches = pair
    ours = AutoModel.from_pretrained(tmp_path, **BOTH)
    theirs = getattr(theirs, theirs.base_model_prefix)
    for name, batch in batches:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        with torch.no_grad():
            got, want = ours(**inputs), theirs(**inputs, **BOTH)
        compare_inside(got, want, batch, name)
        assert torch.equal(got.hidden_states[-1] * real(batch)[..., None], got.hidden_states[-1])


def test_gradients_that_come_through_them(pair):
    """A loss of all hidden states and weights of attention, as a teacher's is (distillation)."""
    theirs, ours, batches = pair
    name, batch = batches[0]
    seen = real(batch)[:, None] != 0
    pairs = seen[..., None, :] & seen[..., None]
    grads = []
    for model in (ours, theirs):
        model.zero_grad()
        out = model(**batch, **BOTH)
        loss = sum((x * seen.mT).square().mean() for x in out.hidden_states)
        loss = loss + sum((x * pairs).square().sum() for x in out.attentions)
        loss.backward()
        named = model.named_parameters()
        grads.append({n: p.grad for n, p in named if p.grad is not None})
    for parameter, want in grads[1].items():
        got = grads[0].get(parameter, torch.zeros_like(want))
        assert_near(got, want, f"{name}: {parameter}", 1e-5, relative=True)


# ------------------------------------------------------------------------------- captum, BertViz


def attributions(model, batch, plan, layer):
    """Integrated gradients of class 0, from padding to the rows, at a layer."""
    ids = batch["input_ids"]
    names = [name for name in batch if name not in ("input_ids", "labels")]
    others = tuple(batch[name] for name in names)

    def logits(ids, *others):
        return model(ids, **dict(zip(names, others, strict=True))).logits

    baseline = torch.full_like(ids, plan["pad_token_id"])
    baseline[:, 0] = ids[:, 0]
    integrated = LayerIntegratedGradients(logits, layer)
    options = {"additional_forward_args": others, "target": 0, "n_steps": 8}
    at_once = integrated.attribute(ids, baseline, **options)
    in_parts = integrated.attribute(ids, baseline, **options, internal_batch_size=2 * len(ids))
    state = LayerActivation(logits, layer).attribute(ids, additional_forward_args=others)
    return [x[0] if isinstance(x, tuple) else x for x in (at_once, in_parts, state)]


@each_family
@pytest.mark.parametrize("place", ["embeddings", "layer"])
def test_captum_attributes_as_for_a_model_of_transformers(family, place, tmp_path):
    """Rows of unequal length in one batch, so that no row may be taken for another."""
    plan = random_plan(2, family)
    theirs = peer_model(plan, 2, "eager", ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    batches = [
        batch for _, batch in batches_of(plan, 2)
        if len(batch["input_ids"]) > 1 and not real(batch).all()
    ]  # fmt: skip
    assert batches
    for batch in batches:
        results = []
        for model in (ours, theirs):
            encoder = model.get_submodule(model.base_model_prefix)
            layers = next(m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList))
            layer = encoder.embeddings if place == "embeddings" else layers[-1]
            results.append(attributions(model, batch, plan, layer))
        (got, got_in_parts, state), (want, want_in_parts, want_state) = results
        assert_near(got, want, "attributions", EXACT, relative=True)
        assert_near(got_in_parts, want_in_parts, "in parts", EXACT, relative=True)
        seen = real(batch)[..., None]
        assert_near(state * seen, want_state * seen, "what the layer gives", EXACT, relative=True)


def shown(page):
    """What a page of BertViz shows of all tokens: the first of its script's parameters."""
    text = page.partition("const params = ")[2]
    return json.JSONDecoder().raw_decode(text)[0]["attention"][0]


@each_family
@pytest.mark.parametrize("view", [head_view, model_view])
def test_bertviz_shows_what_it_shows_of_a_model_of_transformers(family, view, tmp_path):
    plan = random_plan(3, family)
    theirs = peer_model(plan, 3, "eager", ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_attentions=True)
    theirs.config.output_attentions = True
    ids = torch.arange(5, 14)[None]
    tokens = [f"w{i}" for i in ids[0]]
    pages = []
    for model in (ours, theirs):
        with torch.no_grad():
            attention = model(ids)[-1]  # as BertViz's own examples take it
        found = shown(view(attention, tokens, 4, html_action="return").data)
        pages.append(found)
    got, want = pages
    assert got["left_text"] == want["left_text"] and "w8" in got["left_text"]
    assert_near(got["attn"], want["attn"], "attention", EXACT)


@each_family
def test_the_pulls_of_minift_inspect_are_captums(family, tmp_path):
    """Integrated gradients at the embeddings, with captum's own defaults, for each row alone."""
    plan = random_plan(2, family)
    theirs = peer_model(plan, 2, "eager", ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    pad, embeddings = (
        plan["pad_token_id"],
        theirs.get_submodule(theirs.base_model_prefix).embeddings,
    )
    for _, batch in batches_of(plan, 2)[:3]:
        names = [name for name in batch if name not in ("input_ids", "labels")]
        one = {name: batch[name][:1] for name in ("input_ids", *names)}
        first = int(one["input_ids"][0, 0])

        def logits(ids, *others, names=names):
            return theirs(ids, **dict(zip(names, others, strict=True))).logits

        empty = torch.where(one["input_ids"] == first, first, pad)
        want, error = LayerIntegratedGradients(logits, embeddings).attribute(
            one["input_ids"], empty, target=1, additional_forward_args=tuple(one[n] for n in names),
            return_convergence_delta=True,
        )  # fmt: skip
        got = integrated_gradients(ours, one, 1, pad, {first})
        assert_near(got["pulls"], want.sum(-1)[0], "pulls", EXACT, relative=True)
        assert_near(got["error"], abs(error[0]), "what they miss", 1e-5)


@pytest.mark.parametrize("name", ["04_bertviz.py", "05_captum.py"])
def test_example(name, tmp_path):
    example = Path(__file__).resolve().parents[2] / "examples" / name
    words = ["--checkpoint", str(make_model(tmp_path / "model")), "--texts", "w1 w2 w3", "w4 w5"]
    done = subprocess.run(
        [sys.executable, str(example), *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    if "captum" in name:
        lines = [line.split() for line in done.stdout.splitlines()[1:]]
        assert " ".join(line[1] for line in lines) == "[CLS] w1 w2 w3 [SEP] w4 w5 [SEP]"
        assert float(lines[1][0]) != 0 and float(lines[0][0]) == 0
    else:
        assert "over 8 tokens" in done.stdout
        found = shown((tmp_path / "attention.html").read_text())
        assert found["left_text"][1:4] == ["w1", "w2", "w3"]
