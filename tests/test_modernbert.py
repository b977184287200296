"""What ModernBERT alone has: windows, turned positions, two spellings of its config, its head."""

import dataclasses
import json
import math

import pytest
import torch
from test_families import CONFIGS, HEADS, config_of, ids_of, make
from tiny import edit_config, load

from minift import AutoConfig
from minift.errors import MiniftError, ModelError
from minift.models.unpadding import Unpadding

LOCAL, GLOBAL = "sliding_attention", "full_attention"
THETAS = {LOCAL: 10_000.0, GLOBAL: 160_000.0}


def thetas(config):
    return {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()}


def modernbert(base=True, **changes):
    return make("modernbert", base=base, **changes)


@pytest.fixture
def folder(tmp_path):
    make("modernbert").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def states(model, ids, mask=None):
    with torch.no_grad():
        return model(ids, mask).last_hidden_state


# ------------------------------------------------------------------------------------------ config


def test_what_config_leaves_unsaid():
    config = config_of("modernbert", num_hidden_layers=7)
    assert config.layer_types == [GLOBAL, LOCAL, LOCAL, GLOBAL, LOCAL, LOCAL, GLOBAL]
    assert thetas(config) == THETAS
    assert config.local_attention == CONFIGS["modernbert"]["local_attention"]
    assert config_of("modernbert", local_attention=None).local_attention == 128
    assert config.classifier_pooling == "cls" and config.classifier_dropout == 0.0


def test_the_older_spelling():
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 5e3, "local_rope_theta": 50.0}
    config = config_of("modernbert", **older)
    assert config.layer_types == [GLOBAL, LOCAL, GLOBAL]
    assert thetas(config) == {GLOBAL: 5e3, LOCAL: 50.0}


def test_the_newer_spelling():
    newer = {
        "layer_types": [LOCAL, GLOBAL, GLOBAL],
        "rope_parameters": {
            LOCAL: {"rope_type": "default", "rope_theta": 50.0},
            GLOBAL: {"rope_type": "default", "rope_theta": 5e3},
        },
    }
    config = config_of("modernbert", **newer)
    assert config.layer_types == newer["layer_types"]
    assert config.rope_parameters == newer["rope_parameters"]


def test_where_both_spellings_stand_the_newer_one_counts():
    """As in a file of 2024 that was loaded and saved by today's programs."""
    newer = {"layer_types": [LOCAL, LOCAL, GLOBAL]}
    newer["rope_parameters"] = {LOCAL: {"rope_theta": 50.0}, GLOBAL: {"rope_theta": 5e3}}
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 7.0, "local_rope_theta": 7.0}
    config = config_of("modernbert", **older, **newer)
    assert config.layer_types == newer["layer_types"]
    assert thetas(config) == {LOCAL: 50.0, GLOBAL: 5e3}


@pytest.mark.parametrize("order", [("layer_norm_eps", "norm_eps"), ("norm_eps", "layer_norm_eps")])
def test_norm_eps_counts_whatever_else_a_file_says(order):
    """Files on the Hub have BERT's name too, which transformers does not read."""
    said = {"norm_eps": 1e-3, "layer_norm_eps": 0.5}
    assert config_of("modernbert", **{name: said[name] for name in order}).layer_norm_eps == 1e-3


def test_both_spellings_are_saved_so_that_they_say_the_same(folder, tmp_path):
    edit_config(folder, global_attn_every_n_layers=2, layer_types=None, rope_parameters=None)
    edit_config(folder, global_rope_theta=5e3, local_rope_theta=50.0)
    model = load(folder)
    model.save_pretrained(tmp_path / "copy")
    again = AutoConfig.from_pretrained(tmp_path / "copy")
    assert (again.layer_types, thetas(again)) == ([GLOBAL, LOCAL, GLOBAL], thetas(model.config))
    said = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert said["layer_types"] == again.layer_types and said["global_attn_every_n_layers"] == 2


@pytest.mark.parametrize(
    "said",
    [
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {GLOBAL: {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}},
        {"rope_parameters": {LOCAL: {"rope_type": "dynamic", "rope_theta": 1e4}}},
    ],
    ids=["older", "global", "local"],
)
def test_scaled_positions_are_refused(said):
    with pytest.raises(ModelError, match="scaled rotary positions"):
        config_of("modernbert", **said)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ModelError, match="classifier_pooling") as caught:
        config_of("modernbert", classifier_pooling="max")
    assert "max" in str(caught.value) and "cls or mean" in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        {"layer_types": [GLOBAL, LOCAL]},
        {"layer_types": [GLOBAL, LOCAL, "chunked_attention"]},
        {"classifier_activation": "swiglu"},
        {"hidden_size": 15, "num_attention_heads": 3},
    ],
    ids=["too_few_layer_types", "unknown_layer_type", "classifier_activation", "odd_heads"],
)
def test_what_cannot_be_computed_is_refused_when_the_model_is_made(said):
    with pytest.raises(MiniftError):
        make("modernbert", **said)


# ---------------------------------------------------------------------------- windows and positions


@pytest.mark.parametrize("window", [1, 2, 5, 6, 8])
def test_a_local_layer_sees_half_a_window_to_either_side(window):
    """Exactly: the token at that distance, and not the next one."""
    model = modernbert(num_hidden_layers=1, layer_types=[LOCAL], local_attention=window)
    ids = ids_of((1, 12))
    before = states(model, ids)[0]
    for position in range(12):
        changed = ids.clone()
        changed[0, position] = 5 + (changed[0, position] - 4) % 55
        moved = (states(model, changed)[0] != before).any(-1)
        distance = (torch.arange(12) - position).abs()
        assert torch.equal(moved, distance <= window // 2), position


def test_layers_of_windows_see_farther_and_a_global_layer_everything():
    ids = ids_of((1, 12))
    for types, reach in (([LOCAL, LOCAL, LOCAL], 6), ([GLOBAL, LOCAL, LOCAL], 11)):
        model = modernbert(layer_types=types, local_attention=4)
        for position in range(12):
            changed = ids.clone()
            changed[0, position] = 5 + (changed[0, position] - 4) % 55
            moved = bool((states(model, changed)[0, 0] != states(model, ids)[0, 0]).any())
            assert moved == (position <= reach), (types, position)


def test_padding_inside_a_row_counts_as_distance():
    """A window is of positions, not of real tokens."""
    model = modernbert(num_hidden_layers=1, layer_types=[LOCAL], local_attention=4)
    ids, mask = ids_of((1, 7)), torch.tensor([[1, 1, 0, 0, 1, 1, 1]])
    changed = ids.clone()
    changed[0, 4] = 5 + (changed[0, 4] - 4) % 55
    moved = (states(model, changed, mask)[0] != states(model, ids, mask)[0]).any(-1)
    assert moved.tolist() == [False, False, False, False, True, True, True]


@pytest.mark.parametrize("by", [1, 3, 7])
def test_only_distances_matter(by):
    """Padding on the left moves every token by as much, and no hidden state."""
    model = modernbert().double()
    ids = ids_of((2, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [5]])).long()
    there = torch.zeros(2, by, dtype=torch.int64)
    want = states(model, ids, mask)
    got = states(model, torch.cat([there, ids], 1), torch.cat([there, mask], 1))[:, by:]
    real = mask.bool()
    # Angles are computed in fp32, as transformers does: that of position 16 has an error of 1e-6.
    torch.testing.assert_close(got[real], want[real], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", [LOCAL, GLOBAL])
def test_distances_do_matter(kind):
    """The same two tokens, nearer or farther: without turned positions nothing would change."""
    model = modernbert(num_hidden_layers=1, layer_types=[kind], local_attention=16)
    ids = torch.tensor([[7, 9, 0, 0]]), torch.tensor([[7, 0, 0, 9]])
    masks = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, 0, 0, 1]])
    near, far = (states(model, *pair)[0, 0] for pair in zip(ids, masks, strict=True))
    assert float((near - far).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", [LOCAL, GLOBAL])
def test_each_kind_of_layer_has_its_own_angles(kind):
    ids = ids_of((1, 12))
    other = LOCAL if kind == GLOBAL else GLOBAL

    def answer(**thetas):
        ropes = {name: {"rope_theta": theta} for name, theta in thetas.items()}
        model = modernbert(num_hidden_layers=1, layer_types=[kind], rope_parameters=ropes)
        return states(model, ids)

    want = answer(**{kind: 100.0, other: 100.0})
    assert torch.equal(answer(**{kind: 100.0, other: 7.0}), want)
    assert not torch.allclose(answer(**{kind: 7.0, other: 100.0}), want, atol=1e-3)


@pytest.mark.parametrize("types", [[GLOBAL, GLOBAL, LOCAL], [LOCAL, LOCAL, GLOBAL]])
@pytest.mark.parametrize("kind", ["right", "holes"])
def test_the_shortened_last_layer_equals_the_whole_one(types, kind):
    """Whichever kind the last one is; hidden states of first positions and all gradients.

    So do layers with extra tokens, of zeros.
    """
    model = modernbert(layer_types=types).double()
    mask = (torch.arange(12) < torch.tensor([[12], [1], [5]])).long()
    if kind == "holes":
        mask[0, 1::3] = 0

    def compute(first_only, extra=0):
        model.zero_grad()
        unpadding = dataclasses.replace(Unpadding.from_mask(mask), num_extra_tokens=extra)
        x = model.encode((ids_of((3, 12)), mask, None), unpadding, first_only)
        first = x if first_only else x[unpadding.first_token_index][unpadding.original_order]
        first.square().sum().backward()
        return first.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}

    whole, whole_grads = compute(False)
    for other in (compute(True), compute(True, extra=3), compute(False, extra=3)):
        torch.testing.assert_close(other[0], whole, rtol=0, atol=1e-10)
        for name, grad in other[1].items():
            torch.testing.assert_close(grad, whole_grads[name], rtol=1e-6, atol=1e-6, msg=name)


# -------------------------------------------------------------------------------------- the head


def test_the_mean_is_over_real_tokens_alone():
    model = modernbert(base=False, classifier_pooling="mean").double()
    ids = ids_of((3, 12))
    mask = (torch.arange(12) < torch.tensor([[12], [4], [7]])).long()
    with torch.no_grad():
        together = model(ids, mask).logits
        alone = [model(ids[i : i + 1, :n]).logits[0] for i, n in enumerate((12, 4, 7))]
        x = model.model(ids, mask).last_hidden_state
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        by_hand = model.classifier(model.head(pooled))
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-6)
    torch.testing.assert_close(together.double(), by_hand, rtol=0, atol=1e-6)


def test_the_mean_does_not_read_a_first_position_that_is_padding():
    """It is among the computed positions, because other heads read it."""
    model = modernbert(base=False, classifier_pooling="mean").double()
    ids, mask = ids_of((2, 9)), torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])
    with torch.no_grad():
        logits = model(ids, mask).logits
        ids[0, :3] = 7
        assert torch.equal(model(ids, mask).logits, logits)
        whole = model(ids, mask, unpadding=Unpadding.identity(mask)).logits
    torch.testing.assert_close(logits, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 5])
def test_a_mask_of_other_numbers_than_one_gives_the_same_mean(scale):
    model = modernbert(base=False, classifier_pooling="mean")
    ids, mask = ids_of((2, 6)), torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    with torch.no_grad():
        want = model(ids, mask).logits
        torch.testing.assert_close(model(ids, mask * scale).logits, want, rtol=0, atol=1e-6)
        assert torch.equal(model(ids, mask.bool()).logits, want)


def test_a_new_head_is_a_truncated_normal_of_its_own_width(tmp_path):
    """As the family was first trained: narrow dense layer, wide classifier, norm of ones."""
    changes = {"hidden_size": 96, "num_attention_heads": 4, "initializer_range": 0.05}
    changes |= {"initializer_cutoff_factor": 1.5, "norm_bias": True, "classifier_bias": True}
    modernbert(**changes).save_pretrained(tmp_path)
    drawn = load(tmp_path, num_labels=96, seed=3).state_dict()
    layers = CONFIGS["modernbert"]["num_hidden_layers"]
    widths = {
        "head.dense.weight": 0.05 / math.sqrt(2 * layers),
        "classifier.weight": 96**-0.5,
    }
    cut = 1.5
    density = math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi)
    shrunk = math.sqrt(1 - 2 * cut * density / math.erf(cut / math.sqrt(2)))  # of the deviation
    for name, width in widths.items():
        tensor = drawn[name].double()
        n = tensor.numel()
        assert abs(float(tensor.mean())) < 5 * width / n**0.5, name
        assert abs(float(tensor.std()) / (width * shrunk) - 1) < 5 / (2 * n) ** 0.5, name
        assert 0.98 * cut * width < float(tensor.abs().max()) <= cut * width * (1 + 1e-6), name
    assert (drawn["head.norm.weight"] == 1).all()
    for name in ("head.norm.bias", "head.dense.bias", "classifier.bias"):
        assert not drawn[name].any(), name


@pytest.mark.parametrize("flag", [True, False])
def test_biases_are_there_where_config_says_so(flag):
    parts = ("attention", "mlp", "norm", "classifier")
    model = make("modernbert", **{f"{part}_bias": flag for part in parts})
    biases = {name for name in model.state_dict() if name.endswith("bias")}
    always = {"classifier.bias"}
    if not flag:
        assert biases == always
    for name in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo", "mlp_norm", "attn_norm"):
        assert (f"model.layers.1.{name}.bias" in biases) == flag
    for name in ("head.dense", "head.norm", "model.final_norm", "model.embeddings.norm"):
        assert (f"{name}.bias" in biases) == flag
    assert "model.layers.0.attn_norm.weight" not in model.state_dict()


def test_the_hidden_layer_of_a_masked_language_model_is_kept(folder):
    """It has the classifier's names and shapes, and was trained; only the classes are new."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(path).items() if not n.startswith("classifier.")}
    save_file(tensors | {"decoder.bias": torch.zeros(60)}, path)
    model = load(folder)
    assert sorted(model.load_report.new) == HEADS["modernbert"][:2]
    assert model.load_report.unused == []
    assert torch.equal(model.head.dense.weight, tensors["head.dense.weight"])
