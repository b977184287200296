"""What a model shows of its inside: hidden states, weights of attention, and modules with hooks.

The numbers are held to transformers by parity/test_live_inside.py; here is what holds by itself.
"""

import dataclasses
import json

import pytest
import torch
from test_families import CONFIGS, FAMILIES, MASKS, each_family, ids_of, kinds, make
from tiny import make_model

from minift import AutoModel, AutoModelForSequenceClassification
from minift.errors import ModelError
from minift.models.pretrained import EncoderOutput, SequenceClassifierOutput
from minift.models.unpadding import Unpadding

BOTH = {"output_hidden_states": True, "output_attentions": True}
NEAR = {"rtol": 1e-5, "atol": 1e-5}  # the weights are sharp


def classifier(family):
    return make(family)


def sizes(family):
    config = kinds(family).config.from_dict(CONFIGS[family])
    return config.num_hidden_layers, config.num_attention_heads, config.hidden_size


def encoder_of(model):
    return model.get_submodule(model.base_model_prefix)


def layers_of(model):
    return next(m for m in encoder_of(model).modules() if isinstance(m, torch.nn.ModuleList))


# ------------------------------------------------------------------------------- what is returned


@each_family
@pytest.mark.parametrize("kind", MASKS)
def test_shapes_and_zeros_at_padding(family, kind):
    model, ids, mask = classifier(family), ids_of((4, 12)), MASKS[kind]
    L, N, H = sizes(family)
    with torch.no_grad():
        out = model(ids, attention_mask=mask, **BOTH)
    assert [tuple(x.shape) for x in out.hidden_states] == [(4, 12, H)] * (L + 1)
    assert [tuple(x.shape) for x in out.attentions] == [(4, N, 12, 12)] * L
    seen = mask.bool()
    for x in out.hidden_states:
        assert not x[~seen].any() and bool(x[seen].any(-1).all())
    pairs = seen[:, None, None] & seen[:, None, :, None]  # (B, 1, T, T)
    for x in out.attentions:
        assert not x[~pairs.expand_as(x)].any()
    for x in out.attentions if kind == "right" else ():
        sums = x.sum(-1)  # from each real token: all of it to real tokens
        torch.testing.assert_close(sums, seen[:, None].expand_as(sums).float())


@each_family
def test_each_row_shows_what_it_shows_alone(family):
    """So rows stand in the order of the batch, and the last layer has all positions."""
    model, ids, mask = classifier(family), ids_of((4, 12)), MASKS["right"]
    with torch.no_grad():
        out = model(ids, attention_mask=mask, **BOTH)
        for i, n in enumerate(mask.sum(1).tolist()):
            alone = model(ids[i : i + 1, :n], **BOTH)
            for got, want in zip(out.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(got[i, :n], want[0], **NEAR)
            for got, want in zip(out.attentions, alone.attentions, strict=True):
                torch.testing.assert_close(got[i, :, :n, :n], want[0], **NEAR)


@each_family
def test_a_mask_that_was_not_looked_at_shows_the_same(family, monkeypatch):
    """As on an accelerator, where the batch stays padded."""
    model, ids, mask = classifier(family), ids_of((4, 12)), MASKS["right"]
    with torch.no_grad():
        want = model(ids, attention_mask=mask, **BOTH)
        got = model(ids, attention_mask=mask, unpadding=Unpadding.identity(mask), **BOTH)
    for name in ("hidden_states", "attentions"):
        for ours, theirs in zip(got[name], want[name], strict=True):
            torch.testing.assert_close(ours, theirs, **NEAR)


def test_extra_tokens_are_not_shown():
    model, ids, mask = classifier("bert"), ids_of((4, 12)), MASKS["right"]
    more = dataclasses.replace(Unpadding.from_mask(mask), num_extra_tokens=5)
    with torch.no_grad():
        want, got = (model(ids, mask, unpadding=u, **BOTH) for u in (None, more))
    for name in ("hidden_states", "attentions"):
        for ours, theirs in zip(got[name], want[name], strict=True):
            torch.testing.assert_close(ours, theirs, **NEAR)
    assert not more.captured, "the caller's stays as it was"


@each_family
@pytest.mark.parametrize("training", [False, True])
def test_nothing_changes_for_who_does_not_ask(family, training):
    """The same bits of logits, loss and gradients before and after somebody asks."""
    model, ids, mask = classifier(family).train(training), ids_of((4, 12)), MASKS["right"]
    labels = torch.tensor([0, 1, 1, 0])

    def answers(**asked):
        model.zero_grad()
        torch.manual_seed(1)
        out = model(ids, attention_mask=mask, labels=labels, **asked)
        out.loss.backward()
        return [out.logits, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    before, asked, after = answers(), answers(**BOTH), answers()
    assert all(map(torch.equal, before, after))
    for got, want in zip(asked, before, strict=True) if not training else ():
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    out = model(ids, attention_mask=mask)
    assert out.hidden_states is None and out.attentions is None


def test_in_training_attentions_are_those_behind_dropout():
    model = classifier("bert").train()
    for layer in layers_of(model):
        layer.p_attention = 0.5
    weights = torch.stack(model(ids_of((4, 12)), output_attentions=True).attentions)
    assert 0.3 < float((weights == 0).float().mean()) < 0.7
    sum(x.sum() for x in weights).backward()
    assert float(encoder_of(model).embeddings.word_embeddings.weight.grad.abs().sum()) > 0


def test_a_row_of_nothing_but_padding_shows_zeros():
    mask = torch.tensor([[1] * 6, [0] * 6])
    with torch.no_grad():
        out = classifier("bert")(ids_of((2, 6)), attention_mask=mask, **BOTH)
    assert not any(x[1].any() for x in (*out.hidden_states, *out.attentions))


# --------------------------------------------------------------------------------- how one asks


def test_the_call_decides_over_the_configuration():
    model, ids = classifier("bert"), ids_of((2, 6))
    assert model(ids).attentions is None
    model.config.output_attentions = True
    out = model(ids)
    assert len(out.attentions) == 2 and out.hidden_states is None
    assert model(ids, output_attentions=False, output_hidden_states=True).attentions is None


def test_from_pretrained_and_config_json(tmp_path):
    folder, ids = make_model(tmp_path / "model"), ids_of((2, 6)) % 40
    for loader in (AutoModel, AutoModelForSequenceClassification):
        assert loader.from_pretrained(folder)(ids).hidden_states is None
        assert loader.from_pretrained(folder, **BOTH)(ids).attentions is not None
    entries = json.loads((folder / "config.json").read_text())
    path = folder / "config.json"
    path.write_text(json.dumps({**entries, "output_hidden_states": True}))
    assert AutoModel.from_pretrained(folder)(ids).hidden_states is not None
    assert AutoModel.from_pretrained(folder, output_hidden_states=False)(ids).hidden_states is None
    path.write_text(json.dumps({**entries, "output_hidden_states": "yes"}))
    with pytest.raises(ModelError, match="output_hidden_states"):
        AutoModel.from_pretrained(folder)


def test_outputs_by_attribute_by_name_and_by_number():
    model, ids = classifier("bert"), ids_of((2, 6))
    out = model(ids, labels=torch.tensor([0, 1]), **BOTH)
    assert isinstance(out, SequenceClassifierOutput)
    assert list(out.keys()) == ["loss", "logits", "hidden_states", "attentions"]
    assert out[-1] is out.attentions is out["attentions"] is out.to_tuple()[3]
    assert out[:2] == (out.loss, out.logits) and len(out.to_tuple()) == 4
    assert "attentions" in out and "attentions" not in model(ids)
    assert model(ids, output_attentions=True)[1] is not None
    states = encoder_of(model)(ids, output_hidden_states=True)
    assert isinstance(states, EncoderOutput) and states[2] is states.hidden_states
    assert list(states.keys()) == ["last_hidden_state", "pooler_output", "hidden_states"]


# ------------------------------------------------------------------------------------------ hooks


@each_family
@pytest.mark.parametrize("which", ["embeddings", "first", "last"])
def test_a_module_with_a_hook_shows_the_batch(family, which):
    """(B, T, H), rows in the batch's order; nothing that the model computes changes."""
    model, ids, mask, seen = classifier(family), ids_of((4, 12)), MASKS["right"], []
    layers = layers_of(model)
    number = {"embeddings": 0, "first": 1, "last": len(layers)}[which]
    module = encoder_of(model).embeddings if number == 0 else layers[number - 1]
    with torch.no_grad():
        want = model(ids, attention_mask=mask, output_hidden_states=True)
        handle = module.register_forward_hook(lambda module, given, got: seen.append((given, got)))
        got = model(ids, attention_mask=mask)
        handle.remove()
        after = model(ids, attention_mask=mask)
    torch.testing.assert_close(got.logits, want.logits, **NEAR)
    torch.testing.assert_close(after.logits, want.logits, **NEAR)
    ((given, out),) = seen
    assert tuple(given[0].shape[:2]) == (4, 12)
    projected = "embeddings_project" in encoder_of(model)._modules and number == 0
    normed = family == "modernbert" and which == "last"  # hidden_states has the norm behind it
    if not projected and not normed:
        torch.testing.assert_close(out, want.hidden_states[number], **NEAR)
    assert out.shape[:2] == (4, 12) and not out[~mask.bool()].any()


@each_family
@pytest.mark.parametrize("which", ["embeddings", "first", "last"])
def test_what_a_hook_returns_takes_the_place_of_the_output(family, which):
    """Row by row: the second row is given what the first computes, and becomes the first."""
    model, ids = classifier(family), ids_of((2, 8))
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    layers = layers_of(model)
    module = {"embeddings": encoder_of(model).embeddings, "first": layers[0], "last": layers[-1]}
    with torch.no_grad():
        plain = model(ids, attention_mask=mask).logits
        first = model(ids[:1, :5]).logits
        short = {}
        handle = module[which].register_forward_hook(lambda m, given, got: short.update(x=got))
        model(ids[:1, :5])
        handle.remove()

        def replaced(m, given, got):
            got = got.clone()
            got[1, :5] = short["x"][0]
            return got

        handle = module[which].register_forward_hook(replaced)
        got = model(ids, attention_mask=mask).logits
        handle.remove()
    torch.testing.assert_close(got[0], plain[0], **NEAR)
    torch.testing.assert_close(got[1], first[0], **NEAR)


@pytest.mark.parametrize("table", ["word", "position", "token_type"])
def test_tables_with_hooks_show_the_batch(table):
    model, ids, seen = classifier("bert"), ids_of((4, 12)), []
    module = encoder_of(model).embeddings.get_submodule(f"{table}_embeddings")
    with torch.no_grad():
        want = model(ids, attention_mask=MASKS["right"]).logits
        module.register_forward_hook(lambda module, given, got: seen.append(got.shape))
        got = model(ids, attention_mask=MASKS["right"]).logits
    torch.testing.assert_close(got, want, **NEAR)
    assert seen == [(4, 12, 24)]


def test_all_families_are_tried():
    assert set(FAMILIES) == {"bert", "distilbert", "electra", "modernbert", "roberta"}
