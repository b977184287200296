"""Every family of models against transformers, on the same files: logits, losses, gradients.

Weights of ordinary size are compared in fp32. Sharp ones (see recipe.make_weights), which find more
mistakes, multiply rounding too: with them transformers in fp32 is 4e-6 away from transformers in
fp64. So they are compared in fp64, where the bounds stay as tight, and once more in fp32 with wider
bounds. All are in units of the largest element, where that exceeds 1.
"""

import json

import live
import pytest
import torch
import transformers
from live import (
    FAMILIES,
    ORDINARY,
    SHARP,
    assert_near,
    batches_of,
    peer_base,
    peer_model,
    random_plan,
)
from recipe import make_head
from safetensors.torch import load_file, save_file

from minift import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

LOGITS, GRADIENTS = 1e-6, 1e-5
# {name: (scale of the weights, precision, how many times as much may differ)}
WEIGHTS = {
    "ordinary": (ORDINARY, torch.float32, 1),
    "sharp": (SHARP, torch.float64, 1),
    "sharp_fp32": (SHARP, torch.float32, 10),
}
CASES = [
    (family, weights, seed)
    for family in FAMILIES
    for weights in WEIGHTS
    for seed in range(2 if weights == "sharp_fp32" else 6)
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def compared(request, tmp_path_factory):
    """(the peers' model, minift's, batches, how many times as much may differ)."""
    family, weights, seed = request.param
    scale, dtype, times = WEIGHTS[weights]
    plan, folder = random_plan(seed, family), tmp_path_factory.mktemp("model")
    theirs = peer_model(plan, seed, attention_in(dtype, family), scale)
    theirs.save_pretrained(folder)
    ours = AutoModelForSequenceClassification.from_pretrained(folder)
    batches = [
        (name, {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()})
        for name, batch in batches_of(plan, seed)
    ]
    return theirs.to(dtype), ours.to(dtype), batches, times


def attention_in(dtype, family):
    """eager, but for a ModernBERT in fp64, where it gives NaN at padding.

    There transformers adds the lowest number of fp64 and takes the softmax in fp32.
    """
    return "sdpa" if dtype == torch.float64 and family == "modernbert" else "eager"


def classifier(folder, **options):
    return AutoModelForSequenceClassification.from_pretrained(folder, **options)


def plans(seed):
    """A parametrisation: a random plan of each family."""
    return pytest.mark.parametrize("plan", [random_plan(seed, f) for f in FAMILIES], ids=FAMILIES)


# -------------------------------------------------------------------------------- the same numbers


def test_logits_and_loss(compared):
    theirs, ours, batches, times = compared
    for name, batch in batches:
        with torch.no_grad():
            got, want = ours(**batch), theirs(**batch)
        assert_near(got.logits, want.logits, f"logits of {name}", times * LOGITS, relative=True)
        assert_near(got.loss, want.loss, f"loss of {name}", times * LOGITS, relative=True)


def test_gradients(compared):
    """All of them, and so also that the pad token's embedding never gets one.

    It would where the head reads a pad position (left padding): transformers' embedding has a
    padding_idx, which drops that part.
    """
    theirs, ours, batches, times = compared
    for name, batch in batches:
        assert_same_gradients(theirs, ours, batch, name, times * GRADIENTS)


def assert_same_gradients(theirs, ours, batch, name, tolerance=GRADIENTS):
    for model in (ours, theirs):
        model.zero_grad()
        model(**batch).loss.backward()
    want = {key: p.grad for key, p in theirs.named_parameters()}
    got = {key: p.grad for key, p in ours.named_parameters()}
    assert sorted(got) == sorted(want), "parameters keep the names that the file has"
    for key in want:
        # An embedding row or a bias that nothing reads may have no gradient instead of zeros.
        ours_or_zero = torch.zeros_like(want[key]) if got[key] is None else got[key]
        assert_near(ours_or_zero, want[key], f"gradient of {key} in {name}", tolerance, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_kind_of_batch_is_left_out_unseen(family):
    """What recipe.beyond_the_window takes away must still be compared with another plan."""
    seen = [name for seed in range(6) for name, _ in batches_of(random_plan(seed, family), seed)]
    all_of_them = {name for name, _ in batches_of(random_plan(0), 0)}
    assert set(seen) >= all_of_them
    assert family != "modernbert" or seen.count("left_padded_pairs") == 4
    assert family != "roberta" or seen.count("pad_token_inside") == 6


@plans(20)
def test_against_sdpa(plan, tmp_path):
    """The default of transformers on a CPU, rather than its eager attention."""
    theirs = peer_model(plan, 20, attention="sdpa", scale=ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = classifier(tmp_path)
    for name, batch in batches_of(plan, 20):
        with torch.no_grad():
            assert_near(ours(**batch).logits, theirs(**batch).logits, name, LOGITS, relative=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_512_tokens(family, tmp_path):
    """As long as the tables of the well-known models; ModernBERT's window is its usual one."""
    plan = random_plan(1, family)
    plan["max_position_embeddings"] = 514 if family == "roberta" else 512
    if family == "modernbert":
        plan |= {"classifier_pooling": "cls", "local_attention": 128, "num_hidden_layers": 4}
    theirs = peer_model(plan, 1, scale=ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = classifier(tmp_path)
    batch = dict(batches_of(plan, 1, full=512))["full_length"]
    assert batch["input_ids"].shape[1] == 512
    with torch.no_grad():
        got, want = ours(**batch), theirs(**batch)
    assert_near(got.logits, want.logits, "logits", LOGITS, relative=True)
    assert_same_gradients(theirs, ours, batch, "512 tokens")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("window", [1, 2, 5, 16, 126])
def test_windows_of_any_width(window, pooling, tmp_path):
    """Odd ones, one that shows a token itself only, one as wide as the row."""
    plan = random_plan(3, "modernbert")
    plan |= {"local_attention": window, "classifier_pooling": pooling, "num_hidden_layers": 4}
    theirs = peer_model(plan, 3, attention_in(torch.float64, "modernbert"), SHARP)
    theirs.save_pretrained(tmp_path)
    ours = classifier(tmp_path).double()
    theirs = theirs.double()
    for name, batch in batches_of(plan, 3):
        with torch.no_grad():
            assert_near(ours(**batch).logits, theirs(**batch).logits, name, LOGITS, relative=True)


@pytest.mark.parametrize("rope", [{"rope_parameters": None}, {}], ids=["null", "absent"])
def test_older_spelling_of_a_modernbert(rope, tmp_path):
    """config.json as the models of 2024 have it, with thetas far from the defaults."""
    plan = random_plan(0, "modernbert") | {"num_hidden_layers": 5}
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 3e3, "local_rope_theta": 20.0}
    theirs = peer_model(plan | older, 0)
    theirs.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["layer_types"] and said["rope_parameters"], "the spelling of today"
    batches = batches_of(plan, 0)
    with torch.no_grad():
        newer = [classifier(tmp_path)(**batch).logits for _, batch in batches]
        del said["layer_types"], said["rope_parameters"]
        (tmp_path / "config.json").write_text(json.dumps({**said, **older, **rope}))
        ours = classifier(tmp_path)
        for (name, batch), logits in zip(batches, newer, strict=True):
            assert torch.equal(ours(**batch).logits, logits), name
            assert_near(logits, theirs(**batch).logits, name, relative=True)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_real_minilm(attention):
    """The real weights, which have a pooler, no head, no prefix and an int64 buffer."""
    folder = live.require_minilm()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, attn_implementation=attention, dtype=torch.float32
    ).eval()
    ours = classifier(folder, num_labels=2)
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
    with torch.no_grad():
        assert_near(ours(**batch).logits, theirs(**batch).logits, "logits", LOGITS)
    assert_same_gradients(theirs, ours, {**batch, "labels": torch.tensor([0, 1, 0])}, "MiniLM")


# --------------------------------------------------------------------------------- the same files


@plans(4)
def test_base_model(plan, tmp_path):
    """AutoModel: hidden states at real tokens, and the pooled output where there is one."""
    theirs = peer_base(plan, 4, scale=ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = AutoModel.from_pretrained(tmp_path)
    assert ours.load_report.new == []
    pooled = 0
    for name, batch in batches_of(plan, 4):
        del batch["labels"]
        with torch.no_grad():
            got, want = ours(**batch), theirs(**batch)
        real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        states = got.last_hidden_state[real], want.last_hidden_state[real]
        # A norm makes the states as large as 4: a few roundings of these.
        assert_near(*states, f"hidden states of {name}", 2 * LOGITS, relative=True)
        theirs_pools = getattr(want, "pooler_output", None) is not None
        assert (got.pooler_output is not None) == theirs_pools
        if theirs_pools:
            pooled += 1
            assert_near(got.pooler_output, want.pooler_output, f"pooled {name}", LOGITS)
    assert bool(pooled) == (plan["model_type"] in ("bert", "roberta"))


@plans(5)
def test_base_model_of_a_file_with_a_head(plan, tmp_path):
    theirs = peer_model(plan, 5, scale=ORDINARY)
    theirs.save_pretrained(tmp_path)
    ours = AutoModel.from_pretrained(tmp_path).state_dict()
    want = theirs.base_model.state_dict()
    assert {name for name in ours if "pooler" not in name} == {n for n in want if "pooler" not in n}
    assert all(torch.equal(ours[name], tensor) for name, tensor in want.items())


@plans(30)
def test_headless_file_gets_a_new_head(plan, tmp_path):
    """A base model's file has no prefix and no head; the encoder must arrive all the same.

    And what is new there is new here.
    """
    theirs = peer_model(plan, 30)
    theirs.base_model.save_pretrained(tmp_path)
    ours = classifier(tmp_path, num_labels=3)
    _, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=3, output_loading_info=True
    )
    assert sorted(ours.load_report.new) == sorted(report["missing_keys"])
    got, want = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for name in want:
        if name not in ours.load_report.new:
            assert torch.equal(got[name], want[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_new_heads_are_drawn_as_theirs(family, tmp_path):
    """Mean, width and cut-off of each new tensor; 5 standard errors of 4,096 numbers or more."""
    plan = random_plan(1, family) | {"initializer_range": 0.05, "classifier_bias": True}
    plan |= {"dim" if family == "distilbert" else "hidden_size": 64}
    plan |= {"n_heads" if family == "distilbert" else "num_attention_heads": 4}
    if family != "modernbert":
        del plan["classifier_bias"]
    peer_model(plan, 1).base_model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=64
    ).state_dict()
    ours = classifier(tmp_path, num_labels=64)
    for name in ours.load_report.new:
        got, want = ours.state_dict()[name], theirs[name]
        if want.std() == 0:
            assert torch.equal(got, want), name
            continue
        assert abs(got.mean()) < 5 * want.std() / want.numel() ** 0.5, name
        assert abs(got.std() / want.std() - 1) < 5 / want.numel() ** 0.5, name
        largest = float(got.abs().max() / got.std()), float(want.abs().max() / want.std())
        assert (largest[0] < 2.5) == (largest[1] < 2.5), f"{name}: cut off, or not"


OTHER_TASKS = [(f, kind) for f in FAMILIES for kind in ("MaskedLM", "TokenClassification")]
OTHER_TASKS += [("bert", "PreTraining"), ("electra", "PreTraining")]


@pytest.mark.parametrize(("family", "kind"), OTHER_TASKS)
def test_files_of_other_tasks(family, kind, tmp_path):
    """Heads of pretraining stay in the file without a word, and those of another task are said.

    ModernBERT's masked language model has the hidden layer of its classifier under the same name:
    transformers takes it, and so does minift.
    """
    plan = random_plan(33, family)
    auto = getattr(transformers, f"AutoModelFor{kind}")
    head = auto.from_config(transformers.AutoConfig.for_model(**plan | {"num_labels": 5}))
    head.save_pretrained(tmp_path)
    ours = classifier(tmp_path, num_labels=2)
    loader = transformers.AutoModelForSequenceClassification
    theirs, report = loader.from_pretrained(
        tmp_path, num_labels=2, output_loading_info=True, ignore_mismatched_sizes=True
    )
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    assert set(ours.load_report.new) == set(report["missing_keys"]) | mismatched
    assert bool(ours.load_report.unused) == (kind == "TokenClassification")
    for name, tensor in theirs.state_dict().items():
        if name not in ours.load_report.new:
            assert torch.equal(ours.state_dict()[name], tensor), name


@plans(31)
def test_legacy_layer_norm_names(plan, tmp_path):
    """bert-base-uncased still calls the LayerNorm's parameters gamma and beta."""
    theirs = peer_model(plan, 31, scale=ORDINARY)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in load_file(file).items()
    }
    assert any("gamma" in name for name in old) == (plan["model_type"] != "modernbert")
    save_file(old, file, metadata={"format": "pt"})
    ours = classifier(tmp_path)
    name, batch = batches_of(plan, 31)[1]
    with torch.no_grad():
        assert_near(ours(**batch).logits, theirs(**batch).logits, name, LOGITS, relative=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@plans(32)
def test_half_precision_files_become_fp32(plan, tmp_path, dtype):
    peer_model(plan, 32, scale=ORDINARY).to(dtype).save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    ).eval()
    ours = classifier(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    name, batch = batches_of(plan, 32)[1]
    with torch.no_grad():
        assert_near(ours(**batch).logits, theirs(**batch).logits, name, LOGITS, relative=True)


@plans(34)
def test_shards(plan, tmp_path):
    theirs = peer_model(plan, 34, scale=ORDINARY)
    theirs.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = classifier(tmp_path)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@plans(35)
def test_config(plan, tmp_path):
    """The values that the peers' configuration has, under its names, by ours."""
    peer_model(plan, 35).save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    compared = set()
    for name in vars(config):
        own = type(config).attribute_map.get(name, name)
        if hasattr(theirs, own):
            assert getattr(config, name) == getattr(theirs, own), name
            compared.add(own)
    older = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    assert compared >= plan.keys() - {"num_labels", *older}
    assert config.num_labels == theirs.num_labels
    assert dict(config.label2id) == theirs.label2id
