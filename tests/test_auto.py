"""`AutoConfig`, `AutoModel`, `AutoModelForSequenceClassification`: folders to models and back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG, edit_config, load, make_model

from minift import AutoConfig, AutoModel, set_seed
from minift.errors import ConfigError, MissingFileError, ModelError
from minift.models import weights
from minift.models.auto import new_tensors
from minift.models.config import EncoderConfig
from minift.models.pretrained import PretrainedModel

CLASSIFIER = ("classifier.weight", "classifier.bias")
IDS = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture
def folder(tmp_path):
    return make_model(tmp_path / "model")


def edit_weights(folder, change):
    """Rewrite the weight file with what `change` makes of its tensors."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)


# ----------------------------------------------------------------------------------- there and back


def test_saved_and_loaded_is_equal_to_the_bit(folder, tmp_path):
    model = load(folder)
    model.save_pretrained(tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert again.load_report.new == [] and again.load_report.unused == []
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with torch.no_grad():
        assert torch.equal(model(IDS, MASK).logits, again(IDS, MASK).logits)


def test_saving_over_the_folder_it_came_from(folder):
    model = load(folder)
    with torch.no_grad():
        model.classifier.weight.fill_(7.0)
    model.save_pretrained(folder)
    assert (load(folder).classifier.weight == 7).all()


def test_config_survives_with_entries_that_mean_nothing_here(folder, tmp_path):
    edit_config(folder, transformers_version="4.9", chunk_size_feed_forward=3, torch_dtype="bf16")
    model = load(folder)
    model.save_pretrained(tmp_path / "copy")
    said = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert said["transformers_version"] == "4.9" and said["chunk_size_feed_forward"] == 3
    assert said["architectures"] == ["BertForSequenceClassification"]
    assert said["dtype"] == "float32" and "torch_dtype" not in said
    assert said["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert said["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}
    assert said.items() >= CONFIG.items()


def test_a_loaded_model_is_ready_to_train_but_in_eval_mode(folder):
    model = load(folder)
    assert not model.training
    assert all(p.requires_grad and p.is_leaf and not p.is_meta for p in model.parameters())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_the_base_model_reads_a_classifier(folder):
    base, classifier = AutoModel.from_pretrained(folder), load(folder)
    assert sorted(base.load_report.unused) == sorted(CLASSIFIER)
    with torch.no_grad():
        pooled = base(IDS, MASK).pooler_output
        torch.testing.assert_close(classifier.classifier(pooled), classifier(IDS, MASK).logits)


def test_a_classifier_reads_a_base_model(folder, tmp_path, capsys):
    """Files such as MiniLM's have no prefix and no classifier."""
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "base")
    assert "encoder.layer.0.output.dense.weight" in load_file(
        tmp_path / "base" / "model.safetensors"
    )
    capsys.readouterr()
    model = load(tmp_path / "base")
    assert sorted(model.load_report.new) == sorted(CLASSIFIER)
    assert "newly initialised      classifier.bias, classifier.weight" in capsys.readouterr().err
    want = load(folder).bert.state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in model.bert.state_dict().items())


def test_half_precision_files_are_trained_in_fp32(folder):
    edit_weights(folder, lambda tensors: {name: t.bfloat16() for name, t in tensors.items()})
    assert all(p.dtype == torch.float32 for p in load(folder).parameters())


def test_gamma_and_beta(folder):
    want = load(folder).state_dict()

    def older(tensors):
        names = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
        renamed = {}
        for name, tensor in tensors.items():
            for new, old in names:
                name = name.replace(new, old)
            renamed[name] = tensor
        return renamed

    edit_weights(folder, older)
    model = load(folder)
    assert model.load_report.new == []
    assert all(torch.equal(tensor, want[name]) for name, tensor in model.state_dict().items())


# ----------------------------------------------------------------------------------------- refusals


def test_a_missing_encoder_weight(folder):
    edit_weights(folder, lambda t: {n: v for n, v in t.items() if "layer.1.output.dense" not in n})
    with pytest.raises(ModelError, match="lacks 2 weights of the encoder"):
        load(folder)


def test_a_wrong_shape_is_found_before_memory_is_taken(folder, monkeypatch):
    """A config.json that asks for a terabyte must cost nothing."""
    edit_config(folder, vocab_size=10**9, hidden_size=32)
    monkeypatch.setattr(weights, "read_tensors", lambda *a: pytest.fail("read the tensors"))
    with pytest.raises(ModelError, match="word_embeddings"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    def spoil(tensors):
        tensors["bert.encoder.layer.0.output.dense.bias"][3] = value
        return tensors

    edit_weights(folder, spoil)
    with pytest.raises(ModelError, match=r"layer\.0\.output\.dense\.bias"):
        load(folder)


def test_another_kind_of_model(folder):
    edit_config(folder, model_type="berrt")
    with pytest.raises(ModelError, match="berrt") as caught:
        AutoConfig.from_pretrained(folder)
    assert "bert, distilbert, electra, modernbert, roberta" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_config_that_is_none(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load(folder)


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(MissingFileError, match="not a model") as caught:
        load(tmp_path)
    assert "notes.txt" in str(caught.value) and "config.json" in str(caught.value)


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(MissingFileError, match="there is no model"):
        load(tmp_path / "nothing")


# ------------------------------------------------------------------------------------------- labels


def test_number_and_names_of_labels(folder):
    assert load(folder).config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert load(folder, num_labels=3).config.num_labels == 3
    assert load(folder, id2label={0: "no", 1: "yes"}).config.label2id == {"no": 0, "yes": 1}
    assert load(folder, id2label={"1": "yes", "0": "no"}).config.id2label == {0: "no", 1: "yes"}
    assert load(folder, label2id={"yes": 1, "no": 0}).config.id2label == {0: "no", 1: "yes"}
    assert load(folder, num_labels=3).classifier.weight.shape == (3, 32)


def test_names_for_the_same_number_keep_the_head(folder):
    model = load(folder, id2label={0: "no", 1: "yes"}, num_labels=2)
    assert model.load_report.new == []


def test_labels_that_contradict_each_other(folder):
    with pytest.raises(ConfigError, match="disagree"):
        load(folder, num_labels=3, id2label={0: "a", 1: "b"})
    with pytest.raises(ConfigError, match="count from 0"):
        load(folder, id2label={1: "a", 2: "b"})


def test_another_number_of_labels_forgets_the_kind_of_problem(folder, tmp_path):
    """A head for one number becomes one for three classes: squared errors would be wrong."""
    edit_config(folder, problem_type="single_label_classification")
    assert load(folder).config.problem_type == "single_label_classification"
    regression = load(folder, num_labels=1)
    assert regression.config.problem_type is None
    assert load(folder, num_labels=1, problem_type="regression").config.problem_type == "regression"
    regression(IDS, MASK, labels=torch.tensor([0.5, 1.0]))
    regression.save_pretrained(tmp_path / "regression")
    assert load(tmp_path / "regression").config.problem_type == "regression"


# ----------------------------------------------------------------------------------------- the head


def test_a_new_head_is_reported(folder, capsys):
    model = load(folder, num_labels=3, seed=1)
    report = model.load_report
    assert sorted(report.new) == sorted(report.unused) == sorted(CLASSIFIER)
    assert str(report).strip() == capsys.readouterr().err.strip()
    load(folder)
    assert capsys.readouterr().err == ""  # nothing new, nothing to say


def drawer(**changes):
    """A model of nothing but its configuration, which draws what it is told."""
    return PretrainedModel(EncoderConfig(**changes))


def test_a_new_head_has_the_statistics_of_its_family():
    """Five standard errors: N(0, 0.02) weights and zero biases."""
    n = 200_000
    made = new_tensors({"a.weight": (n // 100, 100), "a.bias": (n,)}, drawer(), seed=3)
    assert abs(float(made["a.weight"].mean())) < 5 * 0.02 / n**0.5
    assert abs(float(made["a.weight"].std()) - 0.02) < 5 * 0.02 / (2 * n) ** 0.5
    assert (made["a.bias"] == 0).all()
    wide = new_tensors({"a.weight": (n,)}, drawer(initializer_range=0.5), seed=3)
    assert abs(float(wide["a.weight"].std()) - 0.5) < 0.01


def test_a_new_head_depends_on_the_seed_alone(folder):
    def head(seed):
        return load(folder, num_labels=3, seed=seed).classifier.weight

    first = head(1)
    torch.rand(5)
    assert torch.equal(first, head(1))
    assert not torch.equal(first, head(2))


def test_a_new_head_moves_nobody_elses_random_numbers(folder):
    before = torch.get_rng_state()
    load(folder, num_labels=3)
    load(folder, num_labels=3, seed=5)
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_seed_the_head_follows_set_seed(folder):
    set_seed(11)
    first = load(folder, num_labels=3).classifier.weight
    torch.rand(3)
    assert torch.equal(first, load(folder, num_labels=3).classifier.weight)
    assert torch.equal(first, load(folder, num_labels=3, seed=11).classifier.weight)
    set_seed(12)
    assert not torch.equal(first, load(folder, num_labels=3).classifier.weight)


def test_two_new_tensors_share_no_numbers():
    """Names that end alike once got the same stream: the classifier was a part of the pooler."""
    shapes = {"classifier.weight": (4, 32), "bert.pooler.dense.weight": (32, 32)}
    made = new_tensors(shapes, drawer(), seed=1)
    first, second = made["classifier.weight"], made["bert.pooler.dense.weight"][:4]
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.4


def test_a_new_tensor_does_not_depend_on_what_else_is_new():
    together = new_tensors({"a.weight": (3, 4), "b.weight": (3, 4)}, drawer(), seed=1)
    alone = new_tensors({"b.weight": (3, 4)}, drawer(), seed=1)
    assert torch.equal(together["b.weight"], alone["b.weight"])


# ------------------------------------------------------------------------- resizing the vocabulary


@pytest.mark.parametrize("kind", [AutoModel.from_pretrained, load])
def test_new_rows_of_the_table_of_tokens_are_the_mean_of_the_old(folder, kind, tmp_path):
    model = kind(folder)
    table = model.get_input_embeddings()
    parameter, old = table.weight, table.weight.detach().clone()
    assert model.resize_token_embeddings(47) is table is model.get_input_embeddings()
    assert table.weight is parameter and table.num_embeddings == 47
    assert torch.equal(table.weight[:45], old)
    assert torch.allclose(table.weight[45:], old.mean(0).expand(2, -1))
    ids = torch.tensor([[2, 45, 46, 3]])
    out = model(ids)
    model.save_pretrained(tmp_path / "copy")
    copy = kind(tmp_path / "copy")
    assert copy.config.vocab_size == 47 and torch.equal(copy(ids)[0], out[0])


def test_an_optimizer_and_tied_weights_see_the_new_rows(folder):
    model = load(folder)
    table = model.get_input_embeddings()
    tied = torch.nn.Linear(32, 45, bias=False)
    tied.weight = table.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.resize_token_embeddings(46)
    before = table.weight.detach().clone()
    model(torch.tensor([[2, 45, 3]]), labels=torch.tensor([1])).loss.backward()
    optimizer.step()
    assert tied.weight is table.weight and not torch.equal(table.weight[45], before[45])


def test_the_number_of_rows(folder):
    model = load(folder)
    assert len(model.resize_token_embeddings(pad_to_multiple_of=8).weight) == 48
    assert len(model.resize_token_embeddings(45, pad_to_multiple_of=8).weight) == 48
    assert len(model.resize_token_embeddings(20).weight) == 20 == model.config.vocab_size
    with pytest.raises(ModelError, match="vocab_size"):
        model.resize_token_embeddings(0)
    assert len(model.get_input_embeddings().weight) == 20
