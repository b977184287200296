"""What minift saves, transformers must load as if it had saved it itself, and the other way."""

import json

import live
import pytest
import torch
import transformers
from live import (
    FAMILIES,
    ORDINARY,
    assert_near,
    assert_same_encoding,
    batches_of,
    peer_base,
    peer_model,
    random_plan,
)
from safetensors import safe_open

from minift import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

CLEAN = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def load_with_peer(auto, folder):
    """A transformers model from the folder, after checking that every key found its place."""
    model, report = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    for kind in CLEAN:
        assert not report[kind], f"{kind}: {sorted(report[kind])}"
    return model.eval()


def plans(seed):
    """A parametrisation: a random plan of each family."""
    return pytest.mark.parametrize("plan", [random_plan(seed, f) for f in FAMILIES], ids=FAMILIES)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_of_a_classifier(tmp_path, family, seed):
    plan = random_plan(seed, family)
    original = peer_model(plan, seed, scale=ORDINARY)
    original.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs").eval()
    ours.save_pretrained(tmp_path / "ours")
    again = load_with_peer(transformers.AutoModelForSequenceClassification, tmp_path / "ours")
    for key, value in original.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    for name, batch in batches_of(plan, seed):
        with torch.no_grad():
            assert_near(again(**batch).logits, original(**batch).logits, name, 1e-6, True)
            assert_near(ours(**batch).logits, again(**batch).logits, name, 1e-6, True)


@plans(1)
def test_files(tmp_path, plan):
    """The names and the metadata that other programs look for."""
    original = peer_model(plan, 1)
    original.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["model_type"] == plan["model_type"]
    assert config["architectures"] == [type(original).__name__]
    with safe_open(tmp_path / "ours" / "model.safetensors", "pt") as file:
        ours_keys, metadata = set(file.keys()), file.metadata()
    with safe_open(tmp_path / "theirs" / "model.safetensors", "pt") as file:
        theirs_keys = set(file.keys())
    assert metadata["format"] == "pt"
    assert ours_keys == theirs_keys
    assert not list((tmp_path / "ours").glob("*.bin")), "no pickle is written"


@plans(6)
def test_round_trip_of_a_config(tmp_path, plan):
    """Every entry that transformers reads is as it was, under the name that its files use."""
    values = {"initializer_range": 0.03, "classifier_dropout": 0.25, "bos_token_id": 3}
    values |= {"hidden_dropout_prob": 0.11, "attention_probs_dropout_prob": 0.12}
    if plan["model_type"] == "distilbert":
        values = {"initializer_range": 0.03, "seq_classif_dropout": 0.25, "qa_dropout": 0.4}
        values |= {"dropout": 0.11, "attention_dropout": 0.12, "activation": "relu"}
    if plan["model_type"] == "modernbert":
        values = {"initializer_range": 0.03, "classifier_dropout": 0.25, "mlp_dropout": 0.11}
        values |= {"attention_dropout": 0.12, "embedding_dropout": 0.13, "decoder_bias": False}
        values |= {"initializer_cutoff_factor": 3.0, "classifier_activation": "relu"}
    theirs = peer_model(plan | values, 6)
    theirs.config.id2label = {i: f"class {i}" for i in range(plan["num_labels"])}
    theirs.config.label2id = {f"class {i}": i for i in range(plan["num_labels"])}
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    want, got = (
        transformers.AutoConfig.from_pretrained(tmp_path / folder).to_dict()
        for folder in ("theirs", "ours")
    )
    assert want.items() >= values.items()
    got.pop("_name_or_path"), want.pop("_name_or_path")
    got.pop("dtype"), want.pop("dtype")  # absent means fp32, and is said here
    assert {k: v for k, v in got.items() if k in want} == want


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_config_has_no_entries_of_another_family(tmp_path, family):
    peer_model(random_plan(6, family), 6).save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    said = json.loads((tmp_path / "ours" / "config.json").read_text())
    known = transformers.AutoConfig.for_model(family).to_dict().keys() | {"torch_dtype"}
    older = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    assert not said.keys() - known - {"classifier_dropout", *older}


@plans(2)
def test_new_head_and_labels(tmp_path, plan):
    """A head of another size, with names for the labels, must reach the peers' config."""
    peer_model(plan, 2).base_model.save_pretrained(tmp_path / "theirs")
    names = {0: "not_equivalent", 1: "equivalent"}
    ours = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "theirs",
        num_labels=2,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    ours.save_pretrained(tmp_path / "ours")
    again = load_with_peer(transformers.AutoModelForSequenceClassification, tmp_path / "ours")
    assert again.config.id2label == names
    assert again.config.label2id == {"not_equivalent": 0, "equivalent": 1}
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@plans(3)
def test_round_trip_of_a_base_model(tmp_path, plan):
    original = peer_base(plan, 3)
    original.save_pretrained(tmp_path / "theirs")
    AutoModel.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    again = load_with_peer(transformers.AutoModel, tmp_path / "ours")
    for key, value in original.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@plans(7)
def test_a_trained_model_is_the_same_to_both(tmp_path, plan):
    """Weights that moved here are read there: three steps of plain descent, then equal logits."""
    peer_model(plan, 7, scale=ORDINARY).save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    batches = batches_of(plan, 7)
    before = ours(**batches[0][1]).logits.detach()
    for _ in range(3):
        ours.zero_grad()
        ours(**batches[0][1]).loss.backward()
        with torch.no_grad():
            for parameter in ours.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
    ours.save_pretrained(tmp_path / "ours")
    again = load_with_peer(transformers.AutoModelForSequenceClassification, tmp_path / "ours")
    assert not torch.allclose(ours(**batches[0][1]).logits, before, atol=1e-3)
    for name, batch in batches:
        with torch.no_grad():
            assert_near(ours(**batch).logits, again(**batch).logits, name, 2e-6, True)


def test_real_minilm_with_its_tokenizer(tmp_path):
    """A whole folder, as a user would hand it on: both halves load with the peers."""
    folder = live.require_minilm()
    ours = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    theirs = load_with_peer(transformers.AutoModelForSequenceClassification, tmp_path)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert their_tokenizer.model_max_length == 512
    texts = ["One sentence.", "Another sentence, longer than the other one. " * 20]
    arguments = {"padding": True, "truncation": True, "return_tensors": "pt"}
    batch = tokenizer(texts, texts[::-1], **arguments)
    assert_same_encoding(batch, their_tokenizer(texts, texts[::-1], **arguments), "saved")
    with torch.no_grad():
        assert_near(ours(**batch).logits, theirs(**batch).logits, "logits")
