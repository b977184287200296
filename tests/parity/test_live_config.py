"""Odd forms of config.json against transformers, family by family: the same model, or an error.

What minift alone loads, or alone refuses, is named: each is on purpose.
"""

import json

import pytest
import torch
from live import FAMILIES, ORDINARY, TOLERANCE, peer_model, random_plan
from transformers import AutoModelForSequenceClassification as PeerModel

from minift import AutoModelForSequenceClassification
from minift.errors import MiniftError
from minift.models.config import ACTIVATIONS

GONE = object()
# {BERT's name: the family's}
NAMES = {
    "distilbert": {
        **{"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
        **{"intermediate_size": "hidden_dim", "hidden_act": "activation"},
        **{"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"},
        "classifier_dropout": "seq_classif_dropout",
    },
    "modernbert": {
        **{"hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps"},
        **{
            "hidden_dropout_prob": "mlp_dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
    },
}
ALIKE = [
    *({"hidden_act": name} for name in ACTIVATIONS),
    *({"pad_token_id": value} for value in (-1, 0, 3, -60, None)),
    *({"position_embedding_type": value} for value in (None, "absolute", GONE)),
    *({"torch_dtype": value} for value in (None, "float32", "float16")),
    *({name: GONE} for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")),
    *({name: 0} for name in ("hidden_dropout_prob", "classifier_dropout")),
    {"initializer_range": GONE},
    {"id2label": {"1": "b", "0": "a"}},
    {"id2label": {" 0": "a", "01": "b"}},
    {"id2label": None, "num_labels": 2},
    {"label2id": {"a": "0"}},
    {"architectures": ["Odd"]},
    {"task_specific_params": {"a": {"b": [1]}}, "is_decoder": False, "use_cache": True},
]
REFUSED = [
    *({"hidden_act": value} for value in ("GELU", "", 5, ["gelu"])),
    *({"vocab_size": value} for value in ("60", [60], True)),
    *({"num_hidden_layers": value} for value in ("2", True)),
    *({"hidden_dropout_prob": value} for value in ("0.1", [0.1], True, 1.5)),
    *({"initializer_range": value} for value in ("0.02", [0.02], True)),
    *({"pad_token_id": value} for value in ("0", [0], True, 10**6)),
    *({"id2label": value} for value in (["a", "b"], "a", {"a": "b"})),
    *({"num_labels": value} for value in ("2", -1)),
    *({"model_type": value} for value in ("BERT", 5)),
    {"model_type": GONE, "architectures": GONE},
]
# transformers fills layers in with random weights, drops relative positions and attends as told.
MINIFT_REFUSES = [
    {"position_embedding_type": "relative_key"},
    {"id2label": {"0": "a", "2": "b"}},
    {"num_hidden_layers": 0},
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    plan = random_plan(1, request.param)  # two labels
    peer_model(plan, 1, scale=ORDINARY).save_pretrained(folder)
    return request.param, folder, json.loads((folder / "config.json").read_text()), plan


def logits(auto, folder, plan):
    ids = torch.tensor([[5, 7, 9, plan["pad_token_id"]], [5, 8, 6, 4]])
    model = auto.from_pretrained(folder).eval().float()
    with torch.no_grad():
        logits = model(ids, attention_mask=torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])).logits
    return logits, {int(number): name for number, name in model.config.id2label.items()}


def changed(family, changes):
    """Write a config.json with the changes; returns the folder and the names of what changed."""
    name, folder, said, _ = family
    changes = {NAMES.get(name, {}).get(key, key): value for key, value in changes.items()}
    said = {key: value for key, value in (said | changes).items() if value is not GONE}
    (folder / "config.json").write_text(json.dumps(said))
    return folder, list(changes)


@pytest.mark.parametrize("changes", ALIKE, ids=str)
def test_what_transformers_loads_is_the_same_model(family, changes):
    if family[0] == "roberta" and changes.get("pad_token_id", 0) in (None, -60):
        pytest.skip("positions count from it there: both refuse the one, transformers the other")
    folder, _ = changed(family, changes)
    want, names = logits(PeerModel, folder, family[3])
    got, own = logits(AutoModelForSequenceClassification, folder, family[3])
    assert (got - want).abs().max() <= TOLERANCE * max(1, want.abs().max())
    assert own == names


@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_what_transformers_refuses_is_refused_by_name(family, changes):
    folder, keys = changed(family, changes)
    with pytest.raises(Exception):  # noqa: B017 - of any kind
        logits(PeerModel, folder, family[3])
    with pytest.raises(MiniftError) as caught:
        logits(AutoModelForSequenceClassification, folder, family[3])
    assert keys[0] in str(caught.value) or "are not known" in str(caught.value)


@pytest.mark.parametrize("changes", MINIFT_REFUSES, ids=str)
def test_what_would_be_another_model_is_refused(family, changes):
    if family[0] == "modernbert" and "num_hidden_layers" in changes:
        pytest.skip("it names the kind of each layer: transformers refuses it too")
    folder, _ = changed(family, changes)
    logits(PeerModel, folder, family[3])
    with pytest.raises(MiniftError):
        logits(AutoModelForSequenceClassification, folder, family[3])


def test_a_file_older_than_model_type_is_known_by_its_class(family):
    """Transformers asks for the key."""
    want, _ = logits(PeerModel, changed(family, {})[0], family[3])
    for value in (GONE, None):
        folder, _ = changed(family, {"model_type": value})
        got, _ = logits(AutoModelForSequenceClassification, folder, family[3])
        assert (got - want).abs().max() <= TOLERANCE * max(1, want.abs().max())
