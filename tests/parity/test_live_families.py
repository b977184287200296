"""minift's BERT against that of transformers, on the same files: logits, losses, gradients."""

import live
import pytest
import torch
import transformers
from live import assert_near, batches_of, peer_model, random_plan
from recipe import make_head
from safetensors.torch import load_file, save_file

from minift import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

SEEDS = range(8)


@pytest.fixture(params=SEEDS)
def saved(request, tmp_path):
    """(plan, the peers' model, the folder it was saved to, seed)."""
    plan = random_plan(request.param)
    model = peer_model(plan, request.param)
    model.save_pretrained(tmp_path)
    return plan, model, tmp_path, request.param


def test_logits_and_loss(saved):
    plan, theirs, folder, seed = saved
    ours = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for name, batch in batches_of(plan, seed):
        with torch.no_grad():
            got, want = ours(**batch), theirs(**batch)
        assert_near(got.logits, want.logits, f"logits of {name}")
        assert_near(got.loss, want.loss, f"loss of {name}")


def test_gradients(saved):
    """All of them, and so also that the pad token's embedding never gets one.

    It would where the head reads a pad position (left padding): transformers' embedding has a
    padding_idx, which drops that part.
    """
    plan, theirs, folder, seed = saved
    ours = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for name, batch in batches_of(plan, seed):
        for model in (ours, theirs):
            model.zero_grad()
            model(**batch).loss.backward()
        want = {key: p.grad for key, p in theirs.named_parameters()}
        got = {key: p.grad for key, p in ours.named_parameters()}
        assert sorted(got) == sorted(want), "parameters keep the names that the file has"
        for key in want:
            # An embedding row or a bias that nothing reads may have no gradient instead of zeros.
            ours_or_zero = torch.zeros_like(want[key]) if got[key] is None else got[key]
            assert_near(ours_or_zero, want[key], f"gradient of {key} in {name}", relative=True)


def test_against_sdpa(tmp_path):
    """The default of transformers on a CPU, rather than its eager attention."""
    plan = random_plan(20)
    theirs = peer_model(plan, 20, attention="sdpa")
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for name, batch in batches_of(plan, 20):
        with torch.no_grad():
            assert_near(ours(**batch).logits, theirs(**batch).logits, name)


def test_base_model(saved):
    """AutoModel from a file with a head: hidden states at real tokens, and the pooled output."""
    plan, theirs, folder, seed = saved
    ours = AutoModel.from_pretrained(folder).eval()
    for name, batch in batches_of(plan, seed):
        del batch["labels"]
        with torch.no_grad():
            got, want = ours(**batch), theirs.bert(**batch)
        real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        states = got.last_hidden_state[real], want.last_hidden_state[real]
        assert_near(*states, f"hidden states of {name}")
        if real[:, 0].all():  # what a pad position holds is nobody's business in a base model
            assert_near(got.pooler_output, want.pooler_output, f"pooled output of {name}")


def test_headless_file_gets_a_new_head(tmp_path):
    """A file of BertModel has no prefix and no classifier; the encoder must arrive all the same."""
    plan = random_plan(30)
    theirs = peer_model(plan, 30)
    theirs.bert.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3).eval()
    got, want = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for name in want:
        if not name.startswith("classifier"):
            assert torch.equal(got[name], want[name]), name
    assert got["classifier.weight"].shape == (3, plan["hidden_size"])
    assert not got["classifier.bias"].any()
    assert 0 < got["classifier.weight"].abs().max() < 6 * 0.02, "drawn from N(0, 0.02)"


def test_legacy_layer_norm_names(tmp_path):
    """bert-base-uncased still calls the LayerNorm's parameters gamma and beta."""
    plan = random_plan(31)
    theirs = peer_model(plan, 31)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in load_file(file).items()
    }
    save_file(old, file, metadata={"format": "pt"})
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    name, batch = batches_of(plan, 31)[1]
    with torch.no_grad():
        assert_near(ours(**batch).logits, theirs(**batch).logits, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_become_fp32(tmp_path, dtype):
    plan = random_plan(32)
    theirs = peer_model(plan, 32).to(dtype)
    theirs.save_pretrained(tmp_path)
    theirs = theirs.float()
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    name, batch = batches_of(plan, 32)[1]
    with torch.no_grad():
        assert_near(ours(**batch).logits, theirs(**batch).logits, name)


def test_config(saved):
    plan, theirs, folder, _ = saved
    config = AutoConfig.from_pretrained(folder)
    for name in [*plan, "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"]:
        assert getattr(config, name) == getattr(theirs.config, name), name
    assert dict(config.id2label) == theirs.config.id2label
    assert dict(config.label2id) == theirs.config.label2id
    assert config.model_type == "bert"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_real_minilm(attention):
    """The real weights, which have a pooler, no head, no prefix and an int64 buffer."""
    folder = live.require_minilm()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, attn_implementation=attention, dtype=torch.float32
    ).eval()
    ours = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    weight, bias = (torch.from_numpy(x) for x in make_head(2, 384))
    with torch.no_grad():
        for model in (theirs, ours):
            model.classifier.weight.copy_(weight)
            model.classifier.bias.copy_(bias)
        batch = AutoTokenizer.from_pretrained(folder)(
            ["A short one.", "One that is quite a bit longer than the first.", "Mid-sized, this."],
            ["Rain.", "Snow is expected in the hills, and rain below.", ""],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        assert_near(ours(**batch).logits, theirs(**batch).logits, "logits")
