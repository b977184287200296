"""config.json: odd forms that are published load, all else is refused under its own name."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, models

from minift import AutoConfig, AutoModelForSequenceClassification, pipeline
from minift.errors import ConfigError, MiniftError, ModelError
from minift.models.config import ACTIVATIONS, EncoderConfig
from minift.testing import tiny

IDS = torch.tensor([[1, 10, 2]])


@pytest.fixture
def folder(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    return tmp_path


def edit(folder, *left_out, **changes):
    path = folder / "config.json"
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in said.items() if k not in left_out}))


def load(folder, **options):
    return AutoModelForSequenceClassification.from_pretrained(folder, **options)


@pytest.mark.parametrize(
    "changes",
    [
        {"position_embedding_type": None},
        {"pad_token_id": -1},
        {"pad_token_id": None},
        {"pad_token_id": 0.0},
        {"layer_norm_eps": None},
        {"num_labels": None},
        {"id2label": {"1": "LABEL_1", "0": "LABEL_0"}},
        {"id2label": {" 0": "LABEL_0", "01": "LABEL_1"}},
        {"label2id": {"LABEL_0": "0"}},
        {"hidden_act": "gelu_python"},
        {"torch_dtype": "float16"},
        {"dtype": None},
        {"architectures": None},
        {"gradient_checkpointing": False, "task_specific_params": {"a": {"b": [1, None]}}},
    ],
    ids=str,
)
def test_published_forms_mean_what_they_mean_to_transformers(folder, changes):
    want = load(folder)(IDS).logits
    edit(folder, **changes)
    model = load(folder)
    assert torch.equal(model(IDS).logits, want)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize(
    "architectures", [["BertModel"], ["BertForMaskedLM"], ["Odd", "BertForPreTraining"]]
)
def test_files_that_are_older_than_model_type(folder, architectures):
    want = load(folder)(IDS).logits
    edit(folder, "model_type", architectures=architectures)
    assert AutoConfig.from_pretrained(folder).model_type == "bert"
    assert torch.equal(load(folder)(IDS).logits, want)


@pytest.mark.parametrize("architectures", [None, [], ["Bert"], [5], 5, {"a": 1}])
def test_a_file_that_tells_no_family_says_what_is_missing(folder, architectures):
    edit(folder, "model_type", architectures=architectures)
    with pytest.raises(ModelError, match="model_type") as caught:
        load(folder)
    assert "bert" in caught.value.expected
    edit(folder, architectures=["XLMRobertaModel"])
    with pytest.raises(ModelError, match="'xlmroberta' are not known"):
        load(folder)


@pytest.mark.parametrize("model_type", [5, ["bert"], {"a": 1}, "BERT"])
def test_a_model_type_that_is_none(folder, model_type):
    edit(folder, model_type=model_type)
    with pytest.raises(ModelError, match="are not known"):
        load(folder)


ODD = ["12", "", [1], {"a": 1}, True, -5, math.nan, math.inf, 1.5, 10**30]
NUMBERS = [
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "type_vocab_size", "num_labels"),
    *("layer_norm_eps", "initializer_range", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "classifier_dropout", "pad_token_id"),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_none_are_refused_under_their_names(folder, name):
    fine = {"pad_token_id": -5, "initializer_range": 1.5, "layer_norm_eps": 1.5}
    for value in (one for one in ODD if one != fine.get(name, "none")):
        edit(folder, **{name: value})
        with pytest.raises(MiniftError, match=name):
            load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu_"},
        {"hidden_act": ["gelu"]},
        {"hidden_act": {"a": 1}},
        {"hidden_act": "prelu"},
        {"pad_token_id": 80},
        {"pad_token_id": -81},
        {"num_attention_heads": 3},
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": ["a", "b"]},
        {"id2label": "a"},
        {"id2label": {"a": "x", "b": "y"}},
        {"id2label": {"0": "a", "00": "b"}},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"is_decoder": "false"},
        {"type_vocab_size": 0},
        {"problem_type": 5},
    ],
    ids=str,
)
def test_entries_that_make_no_model_are_refused_under_their_names(folder, changes):
    edit(folder, **changes)
    with pytest.raises(MiniftError, match=next(iter(changes))):
        load(folder)


def test_activations_of_several_names_are_one_function():
    x = torch.linspace(-4, 4, 101)
    same = (
        ("gelu", "gelu_python"),
        ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"),
        ("silu", "swish"),
    )
    for names in same:
        values = [ACTIVATIONS[name](x) for name in names]
        assert all(torch.equal(value, values[0]) for value in values)
    assert not torch.equal(ACTIVATIONS["gelu"](x), ACTIVATIONS["gelu_new"](x))


def test_a_familys_own_name_counts_and_no_others():
    from minift_families.distilbert import DistilBertConfig

    said = {"hidden_act": "relu", "classifier_dropout": None, "dropout": 0.5}
    config = DistilBertConfig.from_dict({**said, "hidden_size": 24, "n_heads": 3})
    assert (config.hidden_act, config.classifier_dropout) == ("gelu", 0.2)
    assert (config.hidden_dropout_prob, config.hidden_size) == (0.5, 24)
    with pytest.raises(ModelError, match=r"^n_heads must be"):
        DistilBertConfig.from_dict({"n_heads": "3"})


# ------------------------------------------------------------------------------------- problem_type


@pytest.mark.parametrize("problem_type", ["multi_label", "Regression", "classification", "", 5])
def test_a_problem_type_that_is_none_is_refused_where_the_model_is_made(folder, problem_type):
    if problem_type:
        with pytest.raises(ModelError, match=r"problem_type must be .*multi_label_classification"):
            load(folder, problem_type=problem_type)
    edit(folder, problem_type=problem_type)
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.save(str(folder / "tokenizer.json"))
    for make in (load, lambda where: pipeline("text-classification", model=str(where))):
        with pytest.raises(ModelError, match="problem_type must be"):
            make(folder)


def test_one_output_is_no_class(folder):
    """The loss was 0, whatever the model said."""
    with pytest.raises(ConfigError, match="one output"):
        load(folder, num_labels=1, problem_type="single_label_classification")
    load(folder, num_labels=1, problem_type="multi_label_classification")
    edit(folder, id2label={"0": "a"}, problem_type="single_label_classification")
    with pytest.raises(ConfigError, match="one output"):
        load(folder)


@pytest.mark.parametrize("problem_type", ["multi_label", "Regression", 5, ["regression"]])
def test_a_configuration_is_checked_whenever_it_is_set(problem_type):
    config = EncoderConfig()
    with pytest.raises(ModelError, match="problem_type must be"):
        config.problem_type = problem_type
    with pytest.raises(ModelError, match="vocab_size must be"):
        config.vocab_size = "12"
    config.problem_type, config.note = "regression", object()
    assert config.problem_type == "regression"
