"""What minift saves, transformers must load as if it had saved it itself, and the other way."""

import json

import live
import pytest
import torch
import transformers
from live import assert_near, assert_same_encoding, batches_of, peer_model, random_plan
from safetensors import safe_open

from minift import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

CLEAN = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def load_with_peer(auto, folder):
    """A transformers model from the folder, after checking that every key found its place."""
    model, report = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    for kind in CLEAN:
        assert not report[kind], f"{kind}: {sorted(report[kind])}"
    return model.eval()


@pytest.mark.parametrize("seed", range(4))
def test_round_trip_of_a_classifier(tmp_path, seed):
    plan = random_plan(seed)
    original = peer_model(plan, seed)
    original.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs").eval()
    ours.save_pretrained(tmp_path / "ours")
    again = load_with_peer(transformers.AutoModelForSequenceClassification, tmp_path / "ours")
    for key, value in original.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    for name, batch in batches_of(plan, seed):
        with torch.no_grad():
            assert_near(again(**batch).logits, original(**batch).logits, name)
            assert_near(ours(**batch).logits, again(**batch).logits, name)


def test_files(tmp_path):
    """The names and the metadata that other programs look for."""
    peer_model(random_plan(1), 1).save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    with safe_open(tmp_path / "ours" / "model.safetensors", "pt") as file:
        ours_keys, metadata = set(file.keys()), file.metadata()
    with safe_open(tmp_path / "theirs" / "model.safetensors", "pt") as file:
        theirs_keys = set(file.keys())
    assert metadata["format"] == "pt"
    assert ours_keys == theirs_keys
    assert not list((tmp_path / "ours").glob("*.bin")), "no pickle is written"


def test_new_head_and_labels(tmp_path):
    """A head of another size, with names for the labels, must reach the peers' config."""
    peer_model(random_plan(2), 2).bert.save_pretrained(tmp_path / "theirs")
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
    assert torch.equal(again.classifier.weight, ours.classifier.weight)


def test_round_trip_of_a_base_model(tmp_path):
    original = peer_model(random_plan(3), 3).bert
    original.save_pretrained(tmp_path / "theirs")
    AutoModel.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    again = load_with_peer(transformers.AutoModel, tmp_path / "ours")
    for key, value in original.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


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
