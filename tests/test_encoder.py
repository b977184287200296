"""The encoder: what is left out for speed must not show, in any number and in any gradient.

The reference is `padded`: the same model computed on the whole (B, T) block, as on a device where
looking for padding would cost a wait. It is itself held to transformers by test_golden.py.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minift.errors import ConfigError, DataError, ModelError
from minift.models import attention
from minift.models.attention import dropout
from minift.models.bert import BertForSequenceClassification, BertModel
from minift.models.config import EncoderConfig
from minift.models.heads import SequenceClassifierOutput, classifier_loss, infer_problem_type
from minift.models.pretrained import EncoderOutput
from minift.models.unpadding import Unpadding

SMALL = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}
TOLERANCE = 1e-6


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # more only cost time here
    yield
    torch.set_num_threads(before)


def make(kind=BertForSequenceClassification, seed=0, **changes):
    """A model whose attention is sharp, so that a token that is wrongly seen shows."""
    config = EncoderConfig.from_dict({**SMALL, **changes})
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def padded(monkeypatch):
    """Call it to compute on whole blocks from there on, as where masks cannot be looked at."""

    def start():
        monkeypatch.setattr(Unpadding, "from_mask", Unpadding.identity)

    return start


def ids_of(shape, seed=0):
    return torch.randint(5, 60, shape, generator=torch.Generator().manual_seed(seed))


def mask_of(kind):
    """Masks (4, 12) that differ in where the padding is."""
    mask = torch.zeros(4, 12, dtype=torch.int64)
    if kind == "holes":
        mask = (torch.rand(4, 12, generator=torch.Generator().manual_seed(3)) < 0.5).long()
        mask[:, 1] = 1
        mask[0, 0] = mask[1, 0] = 0
        return mask
    for row, length in enumerate((12, 1, 5, 9) if kind != "short" else (4, 1, 2, 4)):
        if kind == "left":
            mask[row, 12 - length :] = 1
        else:
            mask[row, :length] = 1
    return mask


# ------------------------------------------------------------------------------------- padding-free


@pytest.mark.parametrize("kind", ["right", "left", "holes", "short"])
def test_leaving_padding_out_changes_no_logit_and_no_gradient(model, padded, kind):
    batch = {
        "input_ids": ids_of((4, 12)),
        "attention_mask": mask_of(kind),
        "token_type_ids": ids_of((4, 12), seed=1) % 2,
        "labels": torch.tensor([0, 1, 1, 0]),
    }

    def compute():
        model.zero_grad()
        outputs = model(**batch)
        outputs.loss_sum.backward()
        return outputs.logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}

    logits, grads = compute()
    padded()
    padded_logits, padded_grads = compute()
    torch.testing.assert_close(logits, padded_logits, rtol=0, atol=TOLERANCE)
    for name, grad in grads.items():
        scale = max(1.0, float(padded_grads[name].norm()))
        assert float((grad - padded_grads[name]).norm()) <= 3e-6 * scale, name


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_a_right_padded_row_equals_the_row_alone(model, length):
    """Up to as many positions as the model has."""
    ids, types = ids_of((3, 16)), ids_of((3, 16), seed=2) % 2
    mask = (torch.arange(16) < torch.tensor([[16], [length], [3]])).long()
    with torch.no_grad():
        together = model(ids, mask, types).logits[1]
        alone = model(ids[1:2, :length], token_type_ids=types[1:2, :length]).logits[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
def test_what_stands_at_padding_does_not_matter(model, kind):
    """Other ids and types where the mask is 0, except at the position that the head reads."""
    ids, mask = ids_of((4, 12)), mask_of(kind)
    hidden = mask == 0
    hidden[:, 0] = False
    others = torch.where(hidden, ids_of((4, 12), seed=9), ids)
    types = torch.where(hidden, 1, 0)
    with torch.no_grad():
        assert torch.equal(model(ids, mask).logits, model(others, mask, types).logits)


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
def test_a_row_does_not_see_another(model, kind):
    """Exactly: other tokens in one row change no other row's logits."""
    ids, mask = ids_of((4, 12)), mask_of(kind)
    with torch.no_grad():
        before = model(ids, mask).logits
        for row in range(4):
            changed = ids.clone()
            changed[row] = ids_of((12,), seed=20 + row)
            after = model(changed, mask).logits
            assert torch.equal(after[:row], before[:row])
            assert torch.equal(after[row + 1 :], before[row + 1 :])
            assert not torch.equal(after[row], before[row])


def test_every_real_token_matters(model):
    ids, mask = ids_of((1, 12)), mask_of("holes")[2:3]
    with torch.no_grad():
        before = model(ids, mask).logits
        for position in mask[0].nonzero().flatten().tolist():
            changed = ids.clone()
            changed[0, position] = 5 + (changed[0, position] - 4) % 55
            assert not torch.allclose(model(changed, mask).logits, before, atol=1e-4, rtol=0)


def test_masks_of_any_number_type(model):
    ids, mask = ids_of((4, 12)), mask_of("right")
    with torch.no_grad():
        want = model(ids, mask).logits
        for other in (mask.bool(), mask.float(), mask.int(), mask * 7):
            assert torch.equal(model(ids, other).logits, want)


@given(
    st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(0, 3),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_mask(rows, seed):
    """Whatever is masked: the answer of the padded computation, and a finite one."""
    model = make(seed=1, num_hidden_layers=2)
    mask = torch.tensor(rows).long()
    mask[:, 4] = 1  # a row without any real token has no defined answer
    ids = ids_of(mask.shape, seed)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        got = model(ids, mask).logits
        patch.setattr(Unpadding, "from_mask", Unpadding.identity)
        torch.testing.assert_close(got, model(ids, mask).logits, rtol=0, atol=2e-6)


def test_on_a_device_nothing_waits_for_a_value():
    """A meta tensor has no values, so asking for one (as `if mask.all()` does) is an error."""
    model = make().to("meta").train()
    shape = (4, 12)
    ids, mask, types = (torch.zeros(shape, dtype=torch.int64, device="meta") for _ in range(3))
    outputs = model(ids, mask, types, labels=torch.zeros(4, dtype=torch.int64, device="meta"))
    outputs.loss_sum.backward()
    assert outputs.logits.shape == (4, 2)


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
def test_half_precision_stays_near(model, kind):
    """Under autocast: the logits and the loss are fp32 again, masks still hide."""
    ids, mask = ids_of((4, 12)), mask_of(kind)
    labels = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        exact = model(ids, mask, labels=labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(ids, mask, labels=labels)
    assert half.logits.dtype == half.loss_sum.dtype == torch.float32
    assert not torch.equal(half.logits, exact.logits)
    torch.testing.assert_close(half.logits, exact.logits, rtol=0, atol=0.15)
    torch.testing.assert_close(half.loss, exact.loss, rtol=0, atol=0.1)


def test_a_row_of_nothing_but_padding_is_finite(model):
    mask = mask_of("right")
    mask[2] = 0
    outputs = model(ids_of((4, 12)), mask, labels=torch.tensor([0, 1, 0, 1]))
    outputs.loss.backward()
    assert outputs.logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# ----------------------------------------------------------------------------------- the last layer


@pytest.mark.parametrize("kind", ["right", "left", "holes"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_the_shortened_last_layer_equals_the_whole_one(kind, layers):
    """Hidden states of the first positions, and gradients of every parameter."""
    ids, mask = ids_of((4, 12)), mask_of(kind)
    base = make(BertModel, num_hidden_layers=layers)

    def compute(first_only):
        base.zero_grad()
        unpadding = Unpadding.from_mask(mask)
        x = base.encode((ids, mask, None), unpadding, first_only)
        first = x if first_only else x[unpadding.first_token_index][unpadding.original_order]
        base.pool(first).square().sum().backward()
        grads = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                 for n, p in base.named_parameters()}  # fmt: skip
        return first.detach(), grads

    short, short_grads = compute(True)
    whole, whole_grads = compute(False)
    assert short.shape == (4, 24)
    torch.testing.assert_close(short, whole, rtol=0, atol=TOLERANCE)
    for name, grad in short_grads.items():
        torch.testing.assert_close(grad, whole_grads[name], rtol=1e-5, atol=3e-6, msg=name)


@pytest.mark.parametrize("first_only", [True, False])
def test_extra_tokens_change_nothing(first_only):
    """A device rounds the products' sizes up with them (minift_cpu, in 16 bits); here in fp32."""
    ids, mask = ids_of((4, 12)), mask_of("right")
    base = make(BertModel)

    def compute(extra):
        base.zero_grad()
        unpadding = dataclasses.replace(Unpadding.from_mask(mask), num_extra_tokens=extra)
        x = base.encode((ids, mask, None), unpadding, first_only)
        x.square().sum().backward()
        used = {n: p.grad.clone() for n, p in base.named_parameters() if p.grad is not None}
        return x.detach(), used

    (plain, plain_grads), (extended, extended_grads) = compute(0), compute(5)
    torch.testing.assert_close(extended, plain, rtol=0, atol=TOLERANCE)
    assert list(extended_grads) == list(plain_grads)
    for name, grad in plain_grads.items():
        torch.testing.assert_close(extended_grads[name], grad, rtol=1e-5, atol=3e-6, msg=name)


def test_the_base_model_gives_all_hidden_states(padded):
    base, ids, mask = make(BertModel), ids_of((4, 12)), mask_of("right")
    with torch.no_grad():
        packed = base(ids, mask)
        padded()
        whole = base(ids, mask)
    assert packed.last_hidden_state.shape == (4, 12, 24)
    real = mask.bool()
    torch.testing.assert_close(
        packed.last_hidden_state[real], whole.last_hidden_state[real], rtol=0, atol=TOLERANCE
    )
    assert (packed.last_hidden_state[~real] == 0).all()
    torch.testing.assert_close(packed.pooler_output, whole.pooler_output, rtol=0, atol=TOLERANCE)


# ------------------------------------------------------------------------------------------ dropout


def test_dropout_that_is_off_draws_nothing():
    x, before = torch.randn(7), torch.get_rng_state()
    assert dropout(x, 0.0, training=True) is x
    assert dropout(x, 0.5, training=False) is x
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_is_torchs_unless_a_device_has_its_own(monkeypatch):
    x = torch.ones(1001)
    torch.manual_seed(0)
    ours = dropout(x, 0.1, training=True)
    torch.manual_seed(0)
    assert torch.equal(ours, F.dropout(x, 0.1))
    monkeypatch.setattr(attention, "drop_elements", lambda x, p: x * 0.0)
    assert not dropout(x, 0.1, training=True).any()
    assert dropout(x, 0.0, training=True) is x and dropout(x, 0.1, training=False) is x


def test_a_model_in_halves_trains_without_autocast():
    model, labels = make().bfloat16().train(), torch.tensor([0, 1, 1, 0])
    model(ids_of((4, 12)), mask_of("right"), labels=labels).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def dropouts(model):
    """[(module, the attribute that holds a probability)]"""
    names = ("p", "p_attention", "p_out")
    return [(m, name) for m in model.modules() for name in names if hasattr(m, name)]


def test_training_uses_every_dropout():
    """Each by itself makes two passes differ: embeddings, attention, both halves of each layer."""
    model, ids = make().train(), ids_of((2, 8))
    places = dropouts(model)
    assert len(places) == 1 + 1 + 3 * SMALL["num_hidden_layers"]
    for on in (*places, None):
        for module, name in places:
            setattr(module, name, 0.5 if (module, name) == on else 0.0)
        assert torch.equal(model(ids).logits, model(ids).logits) == (on is None), on


def test_each_probability_goes_to_its_places():
    names = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}
    model = make(**names, classifier_dropout=0.3)
    assert model.p == 0.3
    for module, name in dropouts(model.bert):
        assert getattr(module, name) == (0.2 if name == "p_attention" else 0.1)


def test_the_head_drops_as_the_hidden_layers_unless_told_otherwise():
    assert make(hidden_dropout_prob=0.3).p == 0.3
    assert make(hidden_dropout_prob=0.3, classifier_dropout=0.0).p == 0.0


# ------------------------------------------------------------------------------ others' layers


class Scaled(torch.nn.Module):
    """As adapters are put in: around a layer, without a weight of that name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 16


@pytest.mark.parametrize("layer", [0, 2], ids=["whole layer", "shortened last layer"])
@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_layer_put_in_by_somebody_is_used(part, layer):
    model, ids = make(), ids_of((3, 8))
    attention = model.bert.encoder.layer[layer].get_submodule("attention.self")
    with torch.no_grad():
        plain = model(ids).logits
        setattr(attention, part, Scaled(getattr(attention, part)))
        got = model(ids).logits
        scaled = getattr(attention, part).inner
        setattr(attention, part, scaled)
        for parameter in scaled.parameters():
            parameter *= 16
        want = model(ids).logits
        assert float((want - plain).abs().max()) > 10 * TOLERANCE
        torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_hooks_on_queries_keys_and_values_are_called(part):
    model, ids, seen = make(), ids_of((3, 8)), []
    watched = model.bert.encoder.layer[0].get_submodule(f"attention.self.{part}")
    with torch.no_grad():
        want = model(ids).logits
        watched.register_forward_hook(lambda module, given, got: seen.append(got.shape))
        torch.testing.assert_close(model(ids).logits, want, rtol=0, atol=TOLERANCE)
    assert seen == [(24, 24)]


# --------------------------------------------------------------------------------------------- loss


def test_loss_of_classes():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, -100, 1, -100])
    total, count = classifier_loss(logits, labels, "single_label_classification")
    assert int(count) == 3
    torch.testing.assert_close(total / count, F.cross_entropy(logits, labels))


def test_loss_of_numbers():
    """Of shape (B,) or (B, 1); one row keeps its axis."""
    for rows in (1, 4):
        logits, labels = torch.randn(rows, 1), torch.randn(rows)
        want = F.mse_loss(logits.squeeze(-1), labels)
        for shaped in (labels, labels[:, None], labels.double()):
            total, count = classifier_loss(logits, shaped, "regression")
            assert int(count) == rows
            torch.testing.assert_close(total / count, want)


def test_loss_of_several_numbers_a_row():
    logits, labels = torch.randn(4, 3), torch.randn(4, 3)
    total, count = classifier_loss(logits, labels, "regression")
    torch.testing.assert_close(total / count, F.mse_loss(logits, labels))


def test_loss_of_several_labels_a_row():
    logits, labels = torch.randn(4, 3), (torch.rand(4, 3) < 0.5).float()
    want = F.binary_cross_entropy_with_logits(logits, labels)
    for shaped in (labels, labels.long()):
        total, count = classifier_loss(logits, shaped, "multi_label_classification")
        assert int(count) == 12
        torch.testing.assert_close(total / count, want)


def test_rows_without_labels_add_nothing(model):
    outputs = model(ids_of((2, 4)), labels=torch.tensor([-100, -100]))
    assert float(outputs.loss_sum.detach()) == 0.0 and int(outputs.num_items) == 0
    assert outputs.loss.isnan()  # the mean of nothing, as torch has it
    model.zero_grad()
    outputs.loss_sum.backward()
    assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("labels", "count", "kind"),
    [
        (torch.tensor([0.5, 1.5]), 1, "regression"),
        (torch.tensor([[0.5], [1.5]]), 1, "regression"),
        (torch.tensor([0, 1]), 2, "single_label_classification"),
        (torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), 3, "multi_label_classification"),
    ],
)
def test_the_kind_of_problem_is_kept(labels, count, kind):
    """What labels decide must be saved with the model: a pipeline reads it (softmax or not)."""
    model = make(id2label={i: str(i) for i in range(count)})
    assert model.config.problem_type is None
    model(ids_of((2, 4)))
    assert model.config.problem_type is None
    model(ids_of((2, 4)), labels=labels)
    assert model.config.problem_type == kind
    assert infer_problem_type(count, labels.is_floating_point()) == kind


def test_a_kind_that_was_set_is_used():
    model = make(problem_type="multi_label_classification")
    assert int(model(ids_of((2, 4)), labels=torch.tensor([[0, 1], [1, 1]])).num_items) == 4
    assert model.config.problem_type == "multi_label_classification"


def test_integers_for_one_output_are_an_error():
    """transformers fails in backward, about a dtype."""
    model = make(id2label={0: "score"})
    with pytest.raises(ConfigError, match="one label with integer values"):
        model(ids_of((2, 4)), labels=torch.tensor([0, 1]))


# ---------------------------------------------------------------------------------- inputs, outputs


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"input_ids": ids_of((2, 17))}, "longer than the model's position table"),
        ({"input_ids": torch.tensor([[1, 60]])}, "input_ids has a value"),
        ({"input_ids": torch.tensor([[1, -1]])}, "input_ids has a value"),
        (
            {"input_ids": ids_of((1, 2)), "token_type_ids": torch.tensor([[0, 2]])},
            "token_type_ids has a value",
        ),
        ({"input_ids": ids_of((6,))}, "blocks of one shape"),
        (
            {"input_ids": ids_of((2, 3)), "attention_mask": torch.ones(2, 4)},
            r"attention_mask \(2, 4\)",
        ),
        (
            {
                "input_ids": ids_of((2, 3)),
                "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
                "token_type_ids": torch.zeros(2, 4, dtype=torch.int64),
            },
            r"token_type_ids \(2, 4\)",
        ),
        ({"input_ids": torch.zeros(0, 4, dtype=torch.int64)}, "empty"),
        ({"input_ids": torch.zeros(4, 0, dtype=torch.int64)}, "empty"),
    ],
)
def test_wrong_inputs(model, batch, message):
    with pytest.raises(DataError, match=message) as caught:
        model(**batch)
    assert "got:" in str(caught.value)


def test_ids_at_padding_are_checked_too(model):
    """They are never looked up here, but another device would."""
    ids = torch.tensor([[5, 6, -1]])
    with pytest.raises(DataError, match="-1"):
        model(ids, torch.tensor([[1, 1, 0]]))


def test_outputs_are_read_by_name_and_by_number():
    logits, loss = torch.zeros(1, 2), torch.tensor(3.0)
    without, with_loss = SequenceClassifierOutput(logits), SequenceClassifierOutput(logits, loss)
    assert without[0] is logits and without["logits"] is logits and without.loss is None
    assert with_loss[0] is loss and with_loss[1] is logits and with_loss["loss"] is loss
    assert with_loss[:2] == (loss, logits)
    loss_again, logits_again = with_loss
    assert loss_again is loss and logits_again is logits
    hidden = EncoderOutput(torch.ones(1, 2, 3), torch.zeros(1, 3))
    assert hidden[0] is hidden["last_hidden_state"] and hidden[1] is hidden.pooler_output


# ------------------------------------------------------------------------------------------- config


def test_config_keeps_what_it_does_not_know():
    said = {**SMALL, "model_type": "bert", "transformers_version": "5.0", "_name_or_path": "x"}
    config = EncoderConfig.from_dict(said)
    assert config.to_dict().items() >= said.items()
    assert EncoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ({}, {0: "LABEL_0", 1: "LABEL_1"}),
        ({"num_labels": 3}, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}),
        ({"id2label": {"1": "b", "0": "a"}, "num_labels": 5}, {0: "a", 1: "b"}),
        ({"id2label": {str(i): f"c{i}" for i in range(12)}}, {i: f"c{i}" for i in range(12)}),
    ],
)
def test_labels_of_a_config(said, labels):
    config = EncoderConfig.from_dict(said)
    assert config.id2label == labels and list(config.id2label) == list(labels)
    assert config.num_labels == len(labels)
    assert config.label2id == {name: number for number, name in labels.items()}


def test_label_numbers_must_not_have_gaps():
    with pytest.raises(ConfigError, match="count from 0"):
        EncoderConfig.from_dict({"id2label": {"1": "a", "2": "b"}})


@pytest.mark.parametrize(
    "said",
    [
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"hidden_act": "swiglu"},
    ],
    ids=lambda said: next(iter(said)),
)
def test_what_is_no_such_encoder_is_refused(said):
    with pytest.raises(ModelError):
        EncoderConfig.from_dict(said)
