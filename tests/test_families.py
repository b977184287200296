"""What holds for every family of models: how files are read, heads begin, inputs are checked.

The numbers themselves are held to transformers by test_golden.py and parity/test_live_families.py.
"""

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import edit_config, load

from minift import AutoConfig, AutoModel, hookimpl, plugins
from minift.errors import (
    ConfigError,
    DataError,
    MiniftError,
    MissingFileError,
    ModelError,
    PluginError,
)
from minift.models import auto, weights
from minift.models.unpadding import Unpadding

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from recipe import make_weights

SIZES = {"vocab_size": 60, "max_position_embeddings": 20}
BERT = SIZES | {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
BERT |= {"intermediate_size": 40}
CONFIGS = {
    "bert": BERT,
    "distilbert": SIZES | {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40},
    "electra": BERT | {"embedding_size": 12},
    "modernbert": BERT | {"num_hidden_layers": 3, "pad_token_id": 0, "local_attention": 8},
    "roberta": BERT | {"max_position_embeddings": 22, "pad_token_id": 1, "type_vocab_size": 1},
}
FAMILIES = sorted(CONFIGS)
PREFIX = {family: f"{family}." for family in FAMILIES} | {"modernbert": "model."}
HEADS = {
    "bert": ["classifier.bias", "classifier.weight"],
    "distilbert": [
        f"{p}.{e}" for p in ("classifier", "pre_classifier") for e in ("bias", "weight")
    ],
    "electra": [f"classifier.{p}.{e}" for p in ("dense", "out_proj") for e in ("bias", "weight")],
    "modernbert": ["classifier.bias", "classifier.weight", "head.dense.weight", "head.norm.weight"],
    "roberta": [f"classifier.{p}.{e}" for p in ("dense", "out_proj") for e in ("bias", "weight")],
}
LAST = {family: "classifier." for family in FAMILIES} | {"electra": "classifier.out_proj."}
LAST["roberta"] = "classifier.out_proj."
# A weight in the middle of the encoder, as the family's files call it.
INNER = {
    "bert": "bert.encoder.layer.1.output.dense.weight",
    "distilbert": "distilbert.transformer.layer.1.ffn.lin2.weight",
    "electra": "electra.embeddings_project.weight",
    "modernbert": "model.layers.1.mlp.Wo.weight",
    "roberta": "roberta.encoder.layer.1.output.dense.weight",
}
# Names of the heads of pretraining, as transformers writes them.
PRETRAINING = {
    "bert": ["cls.predictions.bias", "cls.seq_relationship.weight", "bert.embeddings.position_ids"],
    "distilbert": ["vocab_transform.weight", "vocab_layer_norm.bias", "vocab_projector.bias"],
    "electra": [
        "discriminator_predictions.dense.weight",
        "generator_predictions.dense.bias",
        "generator_lm_head.bias",
    ],
    "modernbert": ["decoder.bias", "decoder.weight"],
    "roberta": ["lm_head.dense.weight", "lm_head.layer_norm.weight", "roberta.pooler.dense.bias"],
}

each_family = pytest.mark.parametrize("family", FAMILIES)


def kinds(family):
    return auto.find_family(family, Path("config.json"))


def config_of(family, **changes):
    return kinds(family).config.from_dict({**CONFIGS[family], "model_type": family, **changes})


def make(family, base=False, seed=0, **changes):
    """A model with sharp weights, in eval mode."""
    found = kinds(family)
    model = (found.encoder if base else found.classifier)(config_of(family, **changes)).eval()
    made = make_weights({n: p.shape for n, p in model.state_dict().items()}, seed, scale=0.3)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in made.items()})
    return model


@pytest.fixture
def folder(family, tmp_path):
    make(family).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_weights(folder, change):
    """Rewrite the weight file with what `change` makes of its tensors."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def assert_equal_weights(got, want):
    got, want = got.state_dict(), want.state_dict()
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name


def ids_of(shape, seed=0):
    return torch.randint(5, 60, shape, generator=torch.Generator().manual_seed(seed))


MASK = (torch.arange(12) < torch.tensor([[12], [1], [5], [9]])).long()
MASKS = {
    "right": MASK,
    "left": (torch.arange(12) >= torch.tensor([[0], [11], [7], [3]])).long(),
    "holes": MASK[[0, 0, 0, 3]] * torch.tensor([[1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 1]]),
    "none": torch.ones(4, 12, dtype=torch.int64),
}
# The first position of a ModernBERT's row with more padding on the left than its window is wide
# looks at nothing but padding, and what that gives depends on how much of it is computed.
MASKS_WITHIN = MASKS | {"left": (torch.arange(12) >= torch.tensor([[0], [4], [3], [1]])).long()}


# ---------------------------------------------------------------------------------- reading a file


@each_family
def test_saved_and_loaded_is_equal_to_the_bit(family, folder, capsys):
    assert_equal_weights(load(folder), make(family))
    assert capsys.readouterr().err == "", "nothing new, nothing to say"
    assert json.loads((folder / "config.json").read_text())["model_type"] == family


@each_family
def test_a_file_without_the_prefix_of_the_encoder(family, folder):
    prefix = PREFIX[family]
    edit_weights(folder, lambda tensors: {n.removeprefix(prefix): t for n, t in tensors.items()})
    model = load(folder)
    assert model.load_report.new == model.load_report.unused == []
    assert_equal_weights(model, make(family))


@each_family
def test_a_classifier_reads_a_base_model(family, tmp_path, capsys):
    base = make(family, base=True)
    base.save_pretrained(tmp_path)
    assert not any(name.startswith(PREFIX[family]) for name in load_file(*tmp_path.glob("*.saf*")))
    model = load(tmp_path)
    assert sorted(model.load_report.new) == HEADS[family]
    printed = capsys.readouterr().err
    assert all(name in printed for name in HEADS[family]) and "newly initialised" in printed
    want = base.state_dict()
    for name, tensor in model.get_submodule(PREFIX[family][:-1]).state_dict().items():
        assert torch.equal(tensor, want[name]), name


@each_family
def test_a_base_model_reads_a_classifier(family, folder):
    base, classifier = AutoModel.from_pretrained(folder), load(folder)
    assert sorted(base.load_report.unused) == HEADS[family]
    # Classifiers of this one family have no pooler, its base model has.
    pooler = ["pooler.dense.bias", "pooler.dense.weight"] if family == "roberta" else []
    assert base.load_report.new == pooler
    want = classifier.get_submodule(PREFIX[family][:-1]).state_dict()
    got = base.state_dict()
    assert got.keys() - pooler == want.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())


@each_family
def test_shards_are_read_as_one(family, folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[number::3]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    assert_equal_weights(load(folder), make(family))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_family
def test_half_precision_files_become_fp32(family, dtype, folder):
    edit_weights(folder, lambda tensors: {name: t.to(dtype) for name, t in tensors.items()})
    model = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_equal_weights(model, make(family).to(dtype).float())


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "roberta"])
def test_gamma_and_beta(family, folder):
    def older(tensors):
        pairs = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
        for new, old in pairs:
            tensors = {name.replace(new, old): t for name, t in tensors.items()}
        assert any("gamma" in name for name in tensors)
        return tensors

    edit_weights(folder, older)
    model = load(folder)
    assert model.load_report.new == []
    assert_equal_weights(model, make(family))


@each_family
def test_heads_of_pretraining_are_left_over_quietly(family, folder, capsys):
    extra = {name: torch.zeros(3) for name in PRETRAINING[family]}
    edit_weights(folder, lambda tensors: tensors | extra)
    model = load(folder)
    assert model.load_report.unused == [] and capsys.readouterr().err == ""
    assert_equal_weights(model, make(family))


@each_family
def test_what_belongs_to_nothing_is_reported(family, folder):
    edit_weights(folder, lambda tensors: tensors | {"something.else": torch.zeros(3)})
    assert load(folder).load_report.unused == ["something.else"]


@each_family
def test_a_head_of_another_size_gives_way_to_a_new_one(family, folder, capsys):
    """Its last layer alone, where the layers before have the same shape; the table says so."""
    model = load(folder, num_labels=5)
    last = [name for name in HEADS[family] if name.startswith(LAST[family])]
    assert sorted(model.load_report.new) == sorted(model.load_report.unused) == last
    printed = capsys.readouterr().err
    assert f"newly initialised      {', '.join(last)}" in printed
    assert f"in the file, not used  {LAST[family]}" in printed
    want = make(family).state_dict()
    for name, tensor in model.state_dict().items():
        assert name in last or torch.equal(tensor, want[name]), name
    assert model(ids_of((2, 5))).logits.shape == (2, 5)


@each_family
def test_a_missing_weight_of_the_encoder_is_an_error_that_names_it(family, folder):
    name = INNER[family]
    edit_weights(folder, lambda tensors: {n: t for n, t in tensors.items() if n != name})
    with pytest.raises(ModelError, match="lacks 1 weights of the encoder") as caught:
        load(folder)
    assert name in str(caught.value)


@each_family
def test_a_pickle_is_refused(family, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(MissingFileError, match=r"no model\.safetensors") as caught:
        load(folder)
    assert "pytorch_model.bin" in str(caught.value) and "pickle" in str(caught.value)


@each_family
def test_a_shape_that_config_does_not_say_is_found_before_memory_is_taken(
    family, folder, monkeypatch
):
    edit_config(folder, vocab_size=10**10)
    monkeypatch.setattr(weights, "read_tensors", lambda *a: pytest.fail("read the tensors"))
    with pytest.raises(ModelError, match=r"embeddings\.weight") as caught:
        load(folder)
    assert "(10000000000, " in str(caught.value) and "(60, " in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@each_family
def test_weights_that_are_not_finite_are_named(family, value, folder):
    def spoil(tensors):
        tensors[INNER[family]][1, 2] = value
        return tensors

    edit_weights(folder, spoil)
    with pytest.raises(ModelError, match=INNER[family].replace(".", r"\.")):
        load(folder)


# --------------------------------------------------------------------------------------- new heads


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "roberta"])
def test_a_new_head_is_normal_with_the_width_that_config_says(family, tmp_path):
    """Within five standard errors; biases are zero."""
    wide = {"dim": 96, "n_heads": 4} if family == "distilbert" else {"hidden_size": 96}
    wide |= {} if family == "distilbert" else {"num_attention_heads": 4}
    make(family, base=True, initializer_range=0.05, **wide).save_pretrained(tmp_path)
    model = load(tmp_path, num_labels=96, seed=3)
    for name in HEADS[family]:
        drawn = model.state_dict()[name].double()
        if name.endswith("bias"):
            assert not drawn.any()
            continue
        n = drawn.numel()
        assert abs(float(drawn.mean())) < 5 * 0.05 / n**0.5, name
        assert abs(float(drawn.std()) / 0.05 - 1) < 5 / (2 * n) ** 0.5, name
        assert float(drawn.abs().max()) > 3 * 0.05, f"{name} has the tails of a normal"
        kurtosis = float((drawn / drawn.std()).pow(4).mean())
        assert abs(kurtosis - 3) < 5 * (24 / n) ** 0.5, name


@each_family
def test_no_two_new_tensors_share_numbers(family, tmp_path):
    make(family, base=True).save_pretrained(tmp_path)
    drawn = load(tmp_path, num_labels=24).state_dict()
    first, *others = (drawn[n].flatten() for n in HEADS[family] if drawn[n].dim() == 2)
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.25


@each_family
def test_a_family_names_its_head(family):
    """What a file may lack must be parameters that exist."""
    for kind in (kinds(family).encoder, kinds(family).classifier):
        with torch.device("meta"):
            names = kind(config_of(family)).state_dict()
        assert all(any(name.startswith(part) for name in names) for part in kind.head_prefixes)


# ----------------------------------------------------------------------------------------- dropout

HIDDEN, ATTENTION, HEAD, EMBEDDING = 0.125, 0.25, 0.375, 0.5
BERT_DROPOUT = {"hidden_dropout_prob": HIDDEN, "attention_probs_dropout_prob": ATTENTION}
BERT_DROPOUT |= {"classifier_dropout": HEAD}
DROPOUT = {family: BERT_DROPOUT for family in FAMILIES}
DROPOUT["distilbert"] = {"dropout": HIDDEN, "attention_dropout": ATTENTION}
DROPOUT["distilbert"] |= {"seq_classif_dropout": HEAD}
DROPOUT["modernbert"] = {"mlp_dropout": HIDDEN, "attention_dropout": ATTENTION}
DROPOUT["modernbert"] |= {"embedding_dropout": EMBEDDING, "classifier_dropout": HEAD}
# What drops, in the order of the computation: (probability, shape) of P = 10 tokens in B = 2 rows
# of 5, H = 24, 3 heads; the last layer computes the first positions alone.
WEIGHTS, WEIGHTS_OF_FIRST = (ATTENTION, (2, 3, 5, 5)), (ATTENTION, (2, 3, 1, 5))
ALL, FIRST = (10, 24), (2, 24)
POST_NORM = [(HIDDEN, ALL), WEIGHTS, (HIDDEN, ALL), (HIDDEN, ALL)]
POST_NORM += [WEIGHTS_OF_FIRST, (HIDDEN, FIRST), (HIDDEN, FIRST)]
PLACES = {
    "bert": [*POST_NORM, (HEAD, FIRST)],
    "electra": [(HIDDEN, (10, 12)), *POST_NORM[1:], (HEAD, FIRST), (HEAD, FIRST)],
    "roberta": [*POST_NORM, (HEAD, FIRST), (HEAD, FIRST)],
    # nothing behind attention
    "distilbert": [
        *((HIDDEN, ALL), WEIGHTS, (HIDDEN, ALL)),
        *(WEIGHTS_OF_FIRST, (HIDDEN, FIRST), (HEAD, FIRST)),
    ],
    # behind attention with attention's probability; inside the feed-forward network, not behind it
    "modernbert": [
        (EMBEDDING, ALL),
        *[WEIGHTS, (ATTENTION, ALL), (HIDDEN, (10, 40))] * 2,
        *(WEIGHTS_OF_FIRST, (ATTENTION, FIRST), (HIDDEN, (2, 40)), (HEAD, FIRST)),
    ],
}


@pytest.fixture
def places(monkeypatch):
    """[(probability, shape)] of what was dropped; `places.only` picks one to drop for real."""
    from minift_families import distilbert, head
    from minift_modernbert import model as modernbert

    from minift.models import attention, bert, encoder

    true_dropout = attention.dropout

    class Places(list):
        only = None

        def __call__(self, x, p, training):
            if not training or p == 0.0:
                return x
            self.append((p, tuple(x.shape)))
            return true_dropout(x, p, True) if len(self) - 1 == self.only else x

    found = Places()
    for module in (attention, encoder, bert, distilbert, head, modernbert):
        monkeypatch.setattr(module, "dropout", found)
    return found


@each_family
def test_training_drops_in_the_places_of_the_family(family, places):
    model = make(family, **DROPOUT[family]).train()
    model(ids_of((2, 5)))
    assert places == PLACES[family]


@each_family
def test_every_place_that_drops_changes_the_answer(family, places):
    """Each by itself; without any, training gives what evaluation gives."""
    model = make(family, **DROPOUT[family])
    ids = ids_of((2, 5))
    with torch.no_grad():
        want = model(ids).logits
        assert places == [], "nothing drops in evaluation"
        assert torch.equal(model.train()(ids).logits, want)
        for place in range(len(PLACES[family])):
            places.clear()
            places.only = place
            torch.manual_seed(place)
            assert not torch.equal(model(ids).logits, want), PLACES[family][place]


@pytest.mark.parametrize(
    ("family", "said", "head"),
    [
        ("bert", {"hidden_dropout_prob": 0.3}, 0.3),
        ("roberta", {"hidden_dropout_prob": 0.3}, 0.3),
        ("electra", {"hidden_dropout_prob": 0.3, "classifier_dropout": None}, 0.3),
        ("electra", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.2}, 0.2),
        ("distilbert", {"dropout": 0.3}, 0.2),
        ("distilbert", {}, 0.2),
        ("distilbert", {"seq_classif_dropout": 0.4}, 0.4),
    ],
)
def test_the_dropout_of_a_head_that_config_leaves_unsaid(family, said, head, places):
    make(family, **said).train()(ids_of((2, 5)))
    assert places[-1] == (head, FIRST)


def test_a_modernbert_drops_nothing_unless_told_to(places):
    make("modernbert").train()(ids_of((2, 5)))
    assert places == []


# ------------------------------------------------------------------------------------------ config


@each_family
def test_config_comes_back_under_the_names_of_the_family(family, folder, tmp_path):
    extra = {"transformers_version": "5.23.0", "some_entry": [1, 2], "initializer_range": 0.04}
    edit_config(folder, **DROPOUT[family], **extra, torch_dtype="bfloat16")
    load(folder).save_pretrained(tmp_path / "copy")
    said = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert said.items() >= {**CONFIGS[family], **DROPOUT[family], **extra}.items()
    assert said["dtype"] == "float32" and "torch_dtype" not in said
    again = json.loads((folder / "config.json").read_text())
    own_names = {key for key in again if key != "torch_dtype"} | {"dtype", "architectures"}
    assert said.keys() == own_names
    assert AutoConfig.from_pretrained(tmp_path / "copy").extra_entries["some_entry"] == [1, 2]


def test_an_unknown_kind_of_model_lists_those_that_are_known(tmp_path):
    """The plugin's among them."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ModelError, match="'gpt2' are not known") as caught:
        AutoConfig.from_pretrained(tmp_path)
    assert ", ".join(FAMILIES) in str(caught.value)
    assert "minift_register_model_families" in str(caught.value)


@pytest.mark.parametrize("family", ["bert"])
def test_no_plugin_can_take_the_name_of_minifts_own_family(folder):
    class Theirs:
        @hookimpl
        def minift_register_model_families(self):
            return {"bert": lambda: pytest.fail("another BERT was loaded")}

    plugins.set_default_manager(plugins.build_manager(None, (), [Theirs()]))
    with pytest.raises(PluginError, match="'bert' is given twice") as caught:
        load(folder)
    assert "minift itself and" in str(caught.value)


def test_a_config_without_a_kind_of_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not known"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("family", "plugin", "left"),
    [
        ("modernbert", "modernbert", "bert, distilbert, electra, roberta"),
        *[
            (family, "families", "bert, modernbert")
            for family in ("distilbert", "electra", "roberta")
        ],
    ],
)
def test_a_family_goes_with_its_plugin(family, plugin, left, folder):
    assert load(folder).config.model_type == family
    plugins.set_default_manager(plugins.build_manager([f"no:{plugin}"]))
    with pytest.raises(ModelError, match=f"'{family}' are not known") as caught:
        load(folder)
    _, expected = str(caught.value).split("expected:")
    assert left in expected


@each_family
def test_a_plugin_must_not_bring_a_family_that_is_there(family, folder):
    """Whichever of the two won, somebody's model would be another than it was yesterday."""

    class Rival:
        @hookimpl
        def minift_register_model_families(self):
            return {family: lambda: pytest.fail("was used")}

    manager = plugins.build_manager()
    manager.register(Rival(), name="rival_plugin")
    plugins.set_default_manager(manager)
    with pytest.raises(MiniftError, match=family) as caught:
        load(folder)
    assert "rival_plugin" in str(caught.value)


@each_family
def test_code_that_a_config_names_is_never_run(family, folder, tmp_path):
    (folder / "evil.py").write_text("raise SystemExit('was run')")
    edit_config(folder, auto_map={"AutoModelForSequenceClassification": "evil.Model"})
    with pytest.warns(UserWarning, match=r"auto_map.*never run"):
        model = load(folder)
    model.save_pretrained(tmp_path / "copy")
    assert "auto_map" not in json.loads((tmp_path / "copy" / "config.json").read_text())


@pytest.mark.parametrize(
    "said",
    [{"is_decoder": True}, {"add_cross_attention": True}, {"position_embedding_type": "relative"}],
    ids=lambda said: next(iter(said)),
)
@each_family
def test_what_is_no_such_encoder_is_refused(family, said, folder):
    edit_config(folder, **said)
    with pytest.raises(ModelError):
        load(folder)


@each_family
def test_a_hidden_size_that_heads_do_not_divide(family, folder):
    edit_config(folder, **{"n_heads" if family == "distilbert" else "num_attention_heads": 5})
    with pytest.raises(ModelError, match="not a multiple") as caught:
        load(folder)
    assert "24 and 5" in str(caught.value)


@each_family
def test_an_unknown_activation(family, folder):
    name = {"distilbert": "activation", "modernbert": "hidden_activation"}.get(family, "hidden_act")
    edit_config(folder, **{name: "swiglu"})
    with pytest.raises(ModelError, match="activation") as caught:
        load(folder)
    assert "swiglu" in str(caught.value) and "gelu" in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        {"pad_token_id": 60},
        {"id2label": {"yes": 0, "no": 1}},
        {"num_attention_heads": 0},
        {"vocab_size": "60"},
    ],
    ids=lambda said: next(iter(said)),
)
def test_entries_that_make_no_model_are_refused_by_name(said):
    with pytest.raises(MiniftError) as caught:
        make("bert", **said)(ids_of((2, 4)))
    assert next(iter(said)) in str(caught.value)


def test_an_entry_of_null_is_one_that_is_not_there():
    config = config_of("bert", layer_norm_eps=None, num_labels=None, id2label=None)
    assert (config.layer_norm_eps, config.num_labels) == (1e-12, 2)


def test_positions_of_a_roberta_count_from_behind_the_padding_tokens_number():
    """Padding has that number itself, wherever in a row it stands."""
    ids = torch.tensor([[0, 9, 9, 1, 1], [1, 1, 0, 9, 9], [0, 1, 9, 1, 9]])
    want = [[2, 3, 4, 1, 1], [1, 1, 2, 3, 4], [2, 1, 3, 1, 4]]
    assert make("roberta").roberta.positions(ids).tolist() == want


# ---------------------------------------------------------------------------------------- bad input


def refused(model, error=DataError, **batch):
    with pytest.raises(error) as caught:
        model(**batch)
    assert isinstance(caught.value, MiniftError)
    return str(caught.value)


@pytest.mark.parametrize("value", [60, -1, 10**9])
@each_family
def test_ids_beyond_the_vocabulary(family, value):
    ids = ids_of((2, 4))
    ids[1, 2] = value
    text = refused(make(family), input_ids=ids)
    assert "input_ids" in text and str(value) in text and "0 to 59" in text
    assert "tokenizer" in text


@each_family
def test_a_row_beyond_the_table_of_positions(family):
    """RoBERTa's has two rows that no token of a row uses: the limit is below what config says."""
    model = make(family)
    assert model(input_ids=ids_of((1, 20))).logits.isfinite().all()
    text = refused(model, input_ids=ids_of((1, 21)))
    assert "21 tokens" in text and "at most 20" in text and "truncation=True" in text


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@each_family
def test_an_empty_batch(family, shape):
    text = refused(make(family), input_ids=torch.zeros(shape, dtype=torch.int64))
    assert "empty" in text and str(shape) in text


@each_family
def test_blocks_of_unequal_shapes(family):
    model = make(family)
    assert "(6,)" in refused(model, input_ids=ids_of((6,)))
    text = refused(model, input_ids=ids_of((2, 3)), attention_mask=torch.ones(3, 2))
    assert "input_ids (2, 3)" in text and "attention_mask (3, 2)" in text


@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
def test_types_that_the_model_does_not_have(family):
    known = 1 if family == "roberta" else 2
    types = torch.full((2, 4), known)
    text = refused(make(family), input_ids=ids_of((2, 4)), token_type_ids=types)
    assert "token_type_ids" in text and f"0 to {known - 1}" in text


@pytest.mark.parametrize("value", [2, 7, -1, -99])
@each_family
def test_labels_beyond_the_classes(family, value):
    labels = torch.tensor([0, value])
    text = refused(make(family), MiniftError, input_ids=ids_of((2, 4)), labels=labels)
    assert "label" in text and str(value) in text and "0 to 1" in text
    assert (f"num_labels={value + 1}" if value > 0 else "-100") in text


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 1, 1]), "(3,)"),
        (torch.tensor([[0, 1]]), "(1, 2)"),
        (torch.tensor([0.0, 1.0]), "float32"),
        (torch.tensor([0.5, float("nan")]), "float32"),
    ],
    ids=["too_many", "one_row_of_two", "floats", "nan"],
)
@each_family
def test_labels_of_another_kind(family, labels, said):
    text = refused(make(family), input_ids=ids_of((2, 4)), labels=labels)
    assert "labels" in text and said in text and "shape (2,)" in text and "problem_type=" in text


@pytest.mark.parametrize("labels", [["yes", "no"], [0, 1]], ids=["strings", "list"])
@each_family
def test_labels_that_are_no_tensor(family, labels):
    text = refused(make(family), MiniftError, input_ids=ids_of((2, 4)), labels=labels)
    assert "labels" in text and "list" in text


@each_family
def test_numbers_as_labels_of_a_model_for_classes(family):
    model = make(family, problem_type="single_label_classification")
    text = refused(model, input_ids=ids_of((2, 4)), labels=torch.tensor([0.0, 1.0]))
    assert "labels" in text and "float32" in text and "integers" in text


@pytest.mark.parametrize("ids", [[[1, 2]], torch.ones(2, 3)], ids=["list", "floats"])
@each_family
def test_ids_that_are_no_tensor_of_integers(family, ids):
    text = refused(make(family), MiniftError, input_ids=ids)
    assert "input_ids" in text


@each_family
def test_a_row_of_nothing_but_padding_is_finite(family):
    mask, model = MASK.clone(), make(family)
    mask[2] = 0
    outputs = model(ids_of((4, 12)), mask, labels=torch.tensor([0, 1, 0, 1]))
    outputs.loss.backward()
    assert outputs.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("base", [False, True], ids=["classifier", "base"])
def test_types_for_a_modernbert(base):
    """Other families without types take them and look at none, and so does transformers."""
    ids = ids_of((2, 4))
    model = make("modernbert", base=base)
    with torch.no_grad():
        got, want = model(ids, token_type_ids=torch.zeros_like(ids)), model(ids)
    assert torch.equal(got[0], want[0])


@pytest.mark.parametrize("rows", [1, 3])
@each_family
def test_a_packing_of_another_batch(family, rows):
    unpadding = Unpadding.from_mask(torch.ones(rows, 4))
    assert "unpadding" in refused(make(family), input_ids=ids_of((2, 4)), unpadding=unpadding)


@each_family
def test_integers_for_one_output(family):
    model = make(family, id2label={0: "score"})
    labels = torch.tensor([0, 1])
    assert "floats" in refused(model, ConfigError, input_ids=ids_of((2, 4)), labels=labels)


@each_family
def test_several_labels_a_row_are_zeros_and_ones(family):
    model = make(family, problem_type="multi_label_classification")
    for value in (7.0, -1.0, -100.0, float("nan")):
        labels = torch.tensor([[0.0, value], [1.0, 1.0]])
        assert "0 or 1" in refused(model, input_ids=ids_of((2, 4)), labels=labels)


@pytest.mark.parametrize(
    "options",
    [
        {"num_labels": 0},
        {"num_labels": -1},
        {"num_labels": 3, "id2label": {0: "a", 1: "b"}},
        {"label2id": {"a": 0, "b": 0}},
        {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
    ],
    ids=["none", "fewer", "another number", "one number twice", "two orders"],
)
@pytest.mark.parametrize("family", ["bert"])
def test_labels_that_contradict_themselves(folder, options):
    with pytest.raises(ConfigError, match="disagree"):
        load(folder, **options)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), "0.1"])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_dropout_that_is_no_probability(family, value):
    name = "dropout" if family == "distilbert" else "hidden_dropout_prob"
    with pytest.raises(ModelError, match=f"^{name} "):
        config_of(family, **{name: value})


@each_family
def test_fewer_layers_than_the_file_has_are_an_error(family, folder):
    name = "n_layers" if family == "distilbert" else "num_hidden_layers"
    said = json.loads((folder / "config.json").read_text())
    edit_config(folder, **{name: said[name] - 1}, layer_types=None)
    with pytest.raises(ModelError, match="does not count"):
        load(folder)


# ----------------------------------------------------------------- other numbers, others' layers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@each_family
def test_a_model_of_other_numbers(family, dtype):
    """Halves to compute with, doubles to check with."""
    ids, labels = ids_of((4, 12)), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        want = make(family)(ids, MASK).logits
        got = make(family).to(dtype)(ids, MASK).logits
    near = 0.1 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(got, want, rtol=near, atol=near * float(want.abs().max()))
    dropped = {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1}
    model = make(family, **(dropped if family == "modernbert" else {})).to(dtype).train()
    model(ids, MASK, labels=labels).loss.backward()
    assert all(p.grad is None or p.grad.dtype == dtype for p in model.parameters())


@each_family
def test_a_row_of_nothing_but_padding_has_the_gradient_of_what_it_computes(family):
    """Of its first token alone: what is put beside it to fill a block gets no weight."""
    model, ids = make(family).double(), ids_of((2, 5))
    mask, alone = torch.tensor([[1] * 5, [0] * 5]), torch.tensor([[1] * 5, [1, 0, 0, 0, 0]])
    labels = torch.tensor([0, 1])
    grads = [answers(model, {"input_ids": ids, "attention_mask": m, "labels": labels})[1]
             for m in (mask, alone)]  # fmt: skip
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], msg=name)


def test_every_full_backward_hook_fires():
    model, seen = make("bert"), []
    attention = model.bert.encoder.layer[0].get_submodule("attention.self")
    for part in ("query", "key", "value"):
        layer = getattr(attention, part)
        layer.register_full_backward_hook(lambda *_, part=part: seen.append(part))
    model(ids_of((2, 4)), labels=torch.tensor([0, 1])).loss.backward()
    assert sorted(seen) == ["key", "query", "value"]


class Scaled(torch.nn.Module):
    """As adapters are put in: around a layer, without a weight of that name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 3


@pytest.mark.parametrize("layer", [0, -1], ids=["whole", "shortened"])
def test_a_layer_put_into_a_modernbert_is_used(layer):
    model, ids = make("modernbert"), ids_of((3, 8))
    attention = model.model.layers[layer].attn
    with torch.no_grad():
        attention.Wqkv.weight *= 3
        want = model(ids).logits
        attention.Wqkv.weight /= 3
        plain = model(ids).logits
        attention.Wqkv = Scaled(attention.Wqkv)
        got = model(ids).logits
    assert float((want - plain).abs().max()) > 1e-3
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


def test_models_can_be_sent_to_another_process():
    model = make("bert", hidden_act="gelu_new")
    copy, ids = pickle.loads(pickle.dumps(model)), ids_of((2, 4))
    with torch.no_grad():
        assert torch.equal(copy(ids).logits, model(ids).logits)


# --------------------------------------------------------------------------------------- unpadding


def answers(model, batch, unpadding=None):
    """(logits, gradients by name)"""
    model.zero_grad()
    outputs = model(**batch, **({} if unpadding is None else {"unpadding": unpadding}))
    outputs.loss.backward()
    grads = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }
    return outputs.logits.detach(), grads


def batch_of(mask):
    labels = torch.tensor([0, 1, 1, 0])
    return {"input_ids": ids_of((4, 12)), "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("kind", MASKS)
@each_family
def test_a_packing_that_was_made_before_changes_nothing(family, kind):
    model, batch = make(family), batch_of(MASKS[kind])
    logits, grads = answers(model, batch)
    again, again_grads = answers(model, batch, Unpadding.from_mask(MASKS[kind]))
    assert torch.equal(logits, again)
    assert all(torch.equal(grads[name], again_grads[name]) for name in grads)


POOLINGS = [(family, {}) for family in FAMILIES]
POOLINGS.append(("modernbert", {"classifier_pooling": "mean"}))


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("family", "changes"), POOLINGS, ids=[*FAMILIES, "modernbert_mean"])
def test_leaving_padding_out_changes_no_logit_and_no_gradient(family, kind, changes):
    """Against the whole padded block, in fp64, where rounding hides nothing."""
    model = make(family, **changes).double()
    batch = batch_of((MASKS_WITHIN if family == "modernbert" else MASKS)[kind])
    mask = batch["attention_mask"]
    logits, grads = answers(model, batch, Unpadding.from_mask(mask))
    whole, whole_grads = answers(model, batch, Unpadding.identity(mask))
    torch.testing.assert_close(logits, whole, rtol=0, atol=1e-6)
    for name, grad in grads.items():
        scale = max(1.0, float(whole_grads[name].abs().max()))
        assert float((grad - whole_grads[name]).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("base", [False, True], ids=["classifier", "base"])
@each_family
def test_on_a_device_nothing_waits_for_a_value(family, base):
    """A meta tensor has no values, so asking for one (as `if mask.all()` does) is an error."""
    model = make(family, base=base, **DROPOUT[family]).to("meta").train()
    ids, mask = (torch.zeros(4, 12, dtype=torch.int64, device="meta") for _ in range(2))
    if base:
        assert model(ids, mask).last_hidden_state.shape == (4, 12, 24)
        return
    outputs = model(ids, mask, labels=torch.zeros(4, dtype=torch.int64, device="meta"))
    outputs.loss_sum.backward()
    assert outputs.logits.shape == (4, 2)


@each_family
def test_half_precision_stays_near(family):
    """Under autocast: the logits and the loss are fp32 again, masks still hide."""
    model = make(family)
    ids, labels = ids_of((4, 12)), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        exact = model(ids, MASK, labels=labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(ids, MASK, labels=labels)
    assert half.logits.dtype == half.loss_sum.dtype == torch.float32
    assert not torch.equal(half.logits, exact.logits)
    scale = max(1.0, float(exact.logits.abs().max()))
    assert float((half.logits - exact.logits).abs().max()) < 0.1 * scale


@each_family
def test_a_row_does_not_see_another(family):
    """Exactly: other tokens in one row change no other row's logits."""
    model, ids = make(family), ids_of((4, 12))
    with torch.no_grad():
        before = model(ids, MASK).logits
        for row in range(4):
            changed = ids.clone()
            changed[row] = ids_of((12,), seed=20 + row)
            after = model(changed, MASK).logits
            same = [torch.equal(after[i], before[i]) for i in range(4)]
            assert same == [i != row for i in range(4)]


@each_family
def test_what_stands_at_padding_does_not_matter(family):
    model, ids = make(family), ids_of((4, 12))
    others = torch.where(MASK == 0, ids_of((4, 12), seed=9), ids)
    with torch.no_grad():
        assert torch.equal(model(ids, MASK).logits, model(others, MASK).logits)
