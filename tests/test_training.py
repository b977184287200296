"""Trainer and the loop: exact for any split of the rows, untouched by evaluating and logging.

Tiny models, trained for real. Named after the pains of other trainers that they exclude.
"""

import json
import math

import numpy as np
import pytest
import torch
from tiny import make_model, make_rows

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Dataset,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    hookimpl,
)
from minift.errors import ArgumentError, ColumnError, ConfigError, DataError, TrainingError
from minift.models.unpadding import Unpadding
from minift.training.batches import epoch_plan, steps_per_epoch

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def quiet_folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), **NO_DROPOUT)


def rows(folder, n=50, seed=0):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = Dataset.from_dict(make_rows(n, seed))
    return data.map(lambda b: tokenizer(b["sentence1"], b["sentence2"]), batched=True)


def trainer(folder, tmp_path, n=50, model=None, callbacks=(), loss=None, metrics=None, **settings):
    usual = {"learning_rate": 1e-3, "disable_tqdm": True, "device": "cpu", "precision": "fp32"}
    return Trainer(
        model or AutoModelForSequenceClassification.from_pretrained(folder, seed=3),
        TrainingArguments(str(tmp_path / "run"), **{**usual, **settings}),
        train_dataset=rows(folder, n),
        eval_dataset=rows(folder, 30, seed=1),
        processing_class=AutoTokenizer.from_pretrained(folder),
        compute_metrics=metrics,
        callbacks=callbacks,
        loss=loss,
    )


def weights(trained):
    return {name: p.detach().clone() for name, p in trained.model.named_parameters()}


def losses(trained, key="loss"):
    return [record[key] for record in trained.state.log_history if key in record]


# --------------------------------------------------------------------------------------- invariance


@pytest.mark.parametrize(("size", "group"), [(8, 2), (4, 4), (1, 16), (16, 1)])
def test_how_a_step_is_cut_into_micro_batches_does_not_matter(quiet_folder, tmp_path, size, group):
    """transformers#47688: accumulation multiplied loss and gradient.

    The last step of an epoch has 13 rows, so that its micro-batches differ in size: a mean of their
    means would be another number.
    """
    steps = {"max_steps": 8, "logging_steps": 1, "n": 61}
    whole = trainer(quiet_folder, tmp_path, per_device_train_batch_size=16, **steps)
    whole.train()
    cut = trainer(
        quiet_folder,
        tmp_path,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=group,
        **steps,
    )
    cut.train()
    first = {"rel": 1e-6, "abs": 0}
    assert losses(cut)[0] == pytest.approx(losses(whole)[0], **first)
    assert losses(cut, "grad_norm")[0] == pytest.approx(losses(whole, "grad_norm")[0], **first)
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-5)


def test_evaluating_and_logging_do_not_change_training(folder, tmp_path):
    """pytorch#80119: each DataLoader iterator drew from the generator that dropout uses."""
    plain = trainer(folder, tmp_path, num_train_epochs=2, logging_steps=100)
    plain.train()
    busy = trainer(
        folder, tmp_path, num_train_epochs=2, logging_steps=1, eval_strategy="steps", eval_steps=2
    )
    busy.train()
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(busy)[name]), name


def class_weighted(outputs, batch):
    """Rows of class 1 count three times, so a batch's count is no whole number of rows."""
    labels = batch["labels"]
    weight = torch.tensor([0.1, 0.3])
    loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight, reduction="sum")
    return loss, weight[labels].sum()


class Bare(torch.nn.Module):
    """A module of one's own: logits, sums and counts, and nothing else of minift."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.embed = torch.nn.EmbeddingBag(200, 8)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask, labels=None):
        logits = self.head(self.embed(input_ids, per_sample_weights=None))
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        return type("Out", (), {"logits": logits, "loss_sum": loss, "num_items": len(labels)})


@pytest.mark.parametrize("kind", ["class weights", "smoothed", "own module"])
def test_any_loss_is_the_same_however_a_step_is_cut(quiet_folder, tmp_path, kind):
    """One contract, (sum, count), also for counts that are no number of rows."""
    options = {"loss": class_weighted} if kind == "class weights" else {}
    settings = {"label_smoothing_factor": 0.2} if kind == "smoothed" else {}

    def train(size, group):
        model = Bare() if kind == "own module" else None
        trained = trainer(
            quiet_folder,
            tmp_path,
            model=model,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=group,
            max_steps=8,
            logging_steps=1,
            n=61,  # the last step of an epoch has micro-batches of unequal size
            **options,
            **settings,
        )
        if kind == "own module":  # whose rows are equally long, for it knows no padding
            pad = {"padding": "max_length", "max_length": 40}
            trained.data_collator = DataCollatorWithPadding(trained.processing_class, **pad)
        trained.train()
        return trained

    whole = train(16, 1)
    for size, group in ((8, 2), (4, 4), (1, 16)):
        cut = train(size, group)
        assert losses(cut)[0] == pytest.approx(losses(whole)[0], rel=1e-6)
        norms = losses(cut, "grad_norm")[0], losses(whole, "grad_norm")[0]
        assert norms[0] == pytest.approx(norms[1], rel=1e-6)
        assert losses(cut) == pytest.approx(losses(whole), rel=1e-5)


def test_label_smoothing_is_for_classes_and_the_models_own_loss(quiet_folder, tmp_path):
    with pytest.raises(ConfigError, match="not loss="):
        trainer(quiet_folder, tmp_path, loss=class_weighted, label_smoothing_factor=0.1)
    labels = [[1.0, 0.0], [0.0, 1.0]]
    several = labelled_trainer(quiet_folder, tmp_path, labels, num_labels=2)
    several.args.label_smoothing_factor = 0.1
    with pytest.raises(ConfigError, match="class labels"):
        several.train()


def test_a_model_that_is_frozen_whole(quiet_folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(quiet_folder).requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        trainer(quiet_folder, tmp_path, model=model).train()


def test_fp16_leaves_out_steps_whose_gradients_overflow(folder, tmp_path):
    """The schedule leaves them out too, the loss scale halves, and the run goes on."""
    plain = trainer(folder, tmp_path, max_steps=12, logging_steps=1, precision="fp16")
    scales = []

    class Watch:
        @hookimpl
        def minift_on_train_begin(self, run):
            run.device.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)

        @hookimpl
        def minift_on_step_end(self, run):
            scales.append((run.device.scaler.get_scale(), run.optimizer.param_groups[0]["lr"]))

    plain.run.manager.register(Watch())
    before = weights(plain)
    plain.train()
    left_out = [scale for scale, _ in scales if scale < 2.0**24]
    assert scales[0] == (2.0**23, 1e-3) and left_out  # no update: the rate is still the first
    assert scales[-1][1] < 1e-3
    assert any(not torch.equal(value, before[name]) for name, value in weights(plain).items())


def test_gradients_that_overflow_at_any_scale_end_the_run(folder, tmp_path):
    broken = trainer(folder, tmp_path, max_steps=60, logging_steps=60, precision="fp16")
    broken.run.model.classifier.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(TrainingError, match="overflow in fp16"):
        broken.train()


@pytest.mark.parametrize(
    ("settings", "logged", "evaluated"),
    [
        ({"logging_strategy": "no"}, [], []),
        ({"logging_strategy": "epoch"}, [7, 14], []),
        ({"logging_steps": 0.25}, [4, 8, 12, 14], []),
        ({"logging_strategy": "no", "logging_first_step": True}, [1], []),
        ({"logging_strategy": "no", "eval_strategy": "epoch"}, [], [7, 14]),
        ({"logging_strategy": "no", "eval_strategy": "epoch", "eval_delay": 1.5}, [], [14]),
        ({"logging_strategy": "no", "eval_strategy": "steps", "eval_steps": 0.5}, [], [7, 14]),
        (
            {"logging_strategy": "no", "eval_strategy": "steps", "eval_steps": 4, "eval_delay": 5},
            [],
            [8, 12, 14],
        ),
        (
            {"logging_strategy": "no", "eval_strategy": "epoch", "eval_on_start": True},
            [],
            [0, 7, 14],
        ),
    ],
)
def test_what_is_logged_and_evaluated_when(folder, tmp_path, settings, logged, evaluated):
    trained = trainer(folder, tmp_path, num_train_epochs=2, save_strategy="no", **settings)
    output = trained.train()
    history = trained.state.log_history
    assert [r["step"] for r in history if "loss" in r] == logged
    assert [r["step"] for r in history if "eval_loss" in r] == evaluated
    assert output.training_loss > 0  # also where nothing was logged


def test_the_order_has_a_seed_of_its_own_if_asked_for(quiet_folder, tmp_path):
    """Without dropout, data_seed alone decides: the losses are those of a run with that seed."""
    own = trainer(quiet_folder, tmp_path, max_steps=4, logging_steps=1, seed=1, data_seed=2)
    own.train()
    other = trainer(quiet_folder, tmp_path, max_steps=4, logging_steps=1, seed=2)
    other.train()
    assert losses(own) == losses(other)


def test_rows_in_their_own_order(quiet_folder, tmp_path):
    ordered = trainer(quiet_folder, tmp_path, max_steps=4, train_sampling_strategy="sequential")
    ordered.train()
    first = epoch_plan(ordered.run, 3)[0]
    assert [list(rows) for rows in first] == [[*range(8)]]


def test_workers_do_not_change_training(folder, tmp_path):
    plain = trainer(folder, tmp_path, max_steps=6)
    plain.train()
    workers = trainer(folder, tmp_path, max_steps=6, dataloader_num_workers=2)
    workers.train()
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(workers)[name]), name


def test_the_real_tokens_are_found_once_a_batch_and_on_the_host(folder, tmp_path, monkeypatch):
    """Before the device has the batch, where looking at a mask would make the host wait."""
    made = []
    original = Unpadding.from_mask

    def counted(mask, *how):
        made.append(tuple(mask.shape))
        return original(mask, *how)

    monkeypatch.setattr(Unpadding, "from_mask", counted)
    trained = trainer(folder, tmp_path, max_steps=4)
    trained.train()
    assert len(made) == 4
    trained.evaluate()
    assert len(made) == 4 + math.ceil(30 / trained.args.per_device_eval_batch_size)


class Plain(torch.nn.Module):
    """A model that takes no unpadding."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids, labels=None):
        return self.model(input_ids, attention_mask, token_type_ids, labels)


def test_a_model_that_takes_no_packing_is_given_none(folder, tmp_path):
    """And learns the same: its encoder finds the tokens by itself."""
    packed = trainer(folder, tmp_path, max_steps=4)
    packed.train()
    inner = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
    plain = trainer(folder, tmp_path, max_steps=4, model=Plain(inner))
    plain.train()
    for name, value in weights(packed).items():
        assert torch.equal(value, weights(plain)[f"model.{name}"]), name


def test_training_depends_on_its_seed_alone(folder, tmp_path):
    torch.manual_seed(1)
    one = trainer(folder, tmp_path, max_steps=5)
    one.train()
    torch.manual_seed(2)
    torch.rand(7)
    same = trainer(folder, tmp_path, max_steps=5)
    same.train()
    other = trainer(folder, tmp_path, max_steps=5, seed=43)
    other.train()
    name = "classifier.weight"
    assert torch.equal(weights(one)[name], weights(same)[name])
    assert not torch.equal(weights(one)[name], weights(other)[name])


def test_training_leaves_the_global_generator_alone(folder, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer(folder, tmp_path, max_steps=2).train()
    assert torch.initial_seed() == 5
    assert torch.equal(torch.rand(3), expected)


def test_a_step_of_unlabelled_rows_changes_nothing(folder, tmp_path):
    made = trainer(folder, tmp_path, max_steps=2)
    made.train_dataset = made.train_dataset.map(lambda row: {"label": -100})
    before = weights(made)
    assert made.train().training_loss == 0.0
    assert all(torch.equal(before[name], value) for name, value in weights(made).items())


def test_named_metrics_leave_out_unlabelled_rows_and_take_a_number_as_it_is():
    from minift.training.evaluation import EvalPrediction, named_metrics

    accuracy = named_metrics(["accuracy"])
    two = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert accuracy(EvalPrediction(two, np.array([1, 0, -100]))) == {"accuracy": 1.0}
    one = np.array([[2.0], [3.0]])
    assert accuracy(EvalPrediction(one, np.array([2.0, 1.0]))) == {"accuracy": 0.5}


def test_dropout_is_on_in_training_and_off_in_evaluation(folder, tmp_path):
    made = trainer(folder, tmp_path, max_steps=1)
    first = made.predict(rows(folder, 10)).predictions
    assert np.array_equal(first, made.predict(rows(folder, 10)).predictions)
    made.model.train()
    batch = made.run.collate(rows(folder, 10).select_columns(["input_ids"]).__getitems__(range(10)))
    assert not torch.equal(made.model(**batch).logits, made.model(**batch).logits)


# ---------------------------------------------------------------------------------- what is logged


def test_losses_are_means_over_items_and_the_task_is_learned(quiet_folder, tmp_path):
    made = trainer(
        quiet_folder, tmp_path, n=64, num_train_epochs=30, logging_steps=8, metrics="accuracy"
    )
    output = made.train()
    assert output.global_step == 240
    assert losses(made)[0] == pytest.approx(math.log(2), abs=0.1)
    assert losses(made)[-1] < 0.2
    assert made.evaluate(rows(quiet_folder, 64))["eval_accuracy"] > 0.9


def test_the_default_is_about_fifty_log_lines(quiet_folder, tmp_path):
    made = trainer(quiet_folder, tmp_path, max_steps=203, per_device_train_batch_size=4)
    made.train()
    assert 45 <= len(losses(made)) <= 55


def test_the_learning_rate_logged_is_the_one_used(quiet_folder, tmp_path):
    made = trainer(quiet_folder, tmp_path, max_steps=4, logging_steps=1, warmup_steps=2)
    made.train()
    assert losses(made, "learning_rate") == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])


def test_eval_loss_is_the_mean_over_rows_whatever_the_batch(quiet_folder, tmp_path):
    small = trainer(quiet_folder, tmp_path, per_device_eval_batch_size=7)
    large = trainer(quiet_folder, tmp_path, per_device_eval_batch_size=30)
    assert small.evaluate()["eval_loss"] == pytest.approx(large.evaluate()["eval_loss"], rel=1e-6)


def test_predictions_are_in_the_order_of_the_dataset(quiet_folder, tmp_path):
    """They are computed sorted by length and put back by row."""
    made = trainer(quiet_folder, tmp_path, per_device_eval_batch_size=4)
    data = rows(quiet_folder, 21)
    together = made.predict(data)
    assert together.predictions.shape == (21, 2)
    for i in (0, 7, 20):
        alone = made.predict(data.select([i]))
        assert np.allclose(alone.predictions[0], together.predictions[i], atol=1e-6)
        assert alone.label_ids[0] == together.label_ids[i] == data[i]["label"]


def test_the_run_folder_says_how_to_repeat_the_run(folder, tmp_path):
    made = trainer(folder, tmp_path, max_steps=3, logging_steps=1)
    made.train()
    made.save_model()
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert said["status"] == "finished"
    assert said["arguments"]["learning_rate"] == 1e-3
    assert said["precision"] == "fp32" and said["precision_reason"] == "asked for"
    assert said["data"]["train"]["rows"] == 50 and said["data"]["train"]["fingerprint"]
    assert torch.__version__.startswith(said["versions"]["torch"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert all(torch.equal(p, weights(made)[n]) for n, p in again.named_parameters())


# ----------------------------------------------------------------------- when numbers go wrong


@pytest.mark.parametrize("fused", [True, False])
def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_model(folder, tmp_path, fused):
    """trl#6702: NaN was replaced in the logs, and training went on with spoilt weights."""
    poisoned = {}

    def loss(outputs, batch):
        if len(poisoned) == 5:
            return outputs.logits.sum() * float("nan"), 8
        poisoned[len(poisoned)] = weights(made)
        return torch.nn.functional.cross_entropy(
            outputs.logits, batch["labels"], reduction="sum"
        ), 8

    made = trainer(folder, tmp_path, max_steps=20, logging_steps=10, loss=loss)
    if not fused:
        made.optimizer = torch.optim.SGD(made.model.parameters(), lr=1e-3)
    with pytest.raises(TrainingError) as error:
        made.train()
    assert "step 6" in str(error.value) and "learning rate" in str(error.value)
    first_bad = np.concatenate(made_rows(made, 5)).tolist()
    assert str(first_bad) in str(error.value)
    after = weights(made)
    assert all(torch.isfinite(p).all() for p in after.values())
    assert any(not torch.equal(after[name], poisoned[4][name]) for name in after)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def made_rows(made, step):
    epoch, index = divmod(step, steps_per_epoch(made.run))
    return epoch_plan(made.run, epoch)[index]


def test_ctrl_c_leaves_a_folder_that_says_so(folder, tmp_path):
    class Interrupts:
        @hookimpl
        def minift_should_stop(self, run):
            raise KeyboardInterrupt

    made = trainer(
        folder, tmp_path, max_steps=9, eval_strategy="steps", eval_steps=3, callbacks=[Interrupts]
    )
    with pytest.raises(KeyboardInterrupt):
        made.train()
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert said["status"] == "interrupted" and said["state"]["global_step"] == 3


def test_early_stopping_does_not_count_evaluations_by_hand(folder, tmp_path):
    """transformers counts them, and stops training early for a look at other rows."""
    settings = {"eval_strategy": "steps", "eval_steps": 2, "learning_rate": 0.0}
    stopped = trainer(folder, tmp_path, callbacks=[EarlyStoppingCallback(3)], **settings)
    stopped.evaluate()
    stopped.evaluate()
    stopped.train()
    assert stopped.state.global_step == 8


@pytest.mark.parametrize(
    ("scores", "threshold", "at"),
    [
        ([1.0, 0.95, 0.90, 0.85], 0.08, 3),  # a little better each time, and never enough
        ([1.0, 0.9, 0.95, 0.8, 0.8], 0.05, None),
        ([1.0, float("nan"), float("nan")], 0.0, 3),
    ],
)
def test_early_stopping_compares_with_the_best_so_far(scores, threshold, at):
    """As transformers does: what is better at all is the best, what is enough resets patience."""
    from types import SimpleNamespace

    args = SimpleNamespace(metric_for_best_model=None, greater_is_better=None)
    callback = EarlyStoppingCallback(2, threshold)
    state = SimpleNamespace(metric_history=[])
    for n, score in enumerate(scores, 1):
        state.metric_history.append(score)
        reason = callback.minift_should_stop(SimpleNamespace(args=args, state=state))
        assert (reason is not None) == (at is not None and n >= at)


def test_early_stopping_counts_evaluations_without_improvement(folder, tmp_path):
    made = trainer(
        folder,
        tmp_path,
        max_steps=50,
        eval_strategy="steps",
        eval_steps=2,
        learning_rate=0.0,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    made.train()
    assert made.state.global_step == 6  # the first evaluation is the best, then two more
    assert "has not improved" in made.state.stop_reason


# ------------------------------------------------------------------ errors before the first step


def with_labels(folder, labels):
    data = rows(folder, len(labels)).remove_columns("label")
    return data.add_column("label", labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], "no class for"),
        ([0, -1, 1], "unlabelled"),
        (["no", "yes", "no"], "strings"),
        ([0, None, 1], "no label"),
    ],
)
def test_labels_that_cannot_be_learned(folder, tmp_path, labels, message):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    args = TrainingArguments(str(tmp_path / "run"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(DataError, match=message):
        Trainer(model, args, train_dataset=with_labels(folder, labels), processing_class=tokenizer)
    assert not (tmp_path / "run").exists()


def test_a_test_set_with_labels_of_minus_one_counts_as_unlabelled(folder, tmp_path):
    made = trainer(folder, tmp_path)
    result = made.predict(with_labels(folder, [-1, -1, -1]))
    assert result.label_ids is None and result.predictions.shape == (3, 2)
    assert "test_loss" not in result.metrics


def test_integer_labels_for_one_output(tmp_path):
    """transformers#27707: this crashed in the backward pass."""
    folder = make_model(tmp_path / "one", id2label={"0": "score"})
    with pytest.raises(DataError, match="num_labels"):
        trainer(folder, tmp_path)


KINDS = [
    ([1.5, -2.0], {"num_labels": 1}, "regression"),
    ([0, 1], {"num_labels": 2}, "single_label_classification"),
    ([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], {"num_labels": 3}, "multi_label_classification"),
    (
        [[0.5, 2.0], [1.5, 0.25]],
        {"num_labels": 2, "problem_type": "regression"},
        "regression",
    ),
]


def labelled_trainer(folder, tmp_path, labels, **model):
    data = rows(folder, 16).remove_columns("label").add_column("labels", labels * 8)
    return Trainer(
        AutoModelForSequenceClassification.from_pretrained(folder, seed=3, **model),
        TrainingArguments(
            str(tmp_path / "run"), max_steps=2, disable_tqdm=True, device="cpu", precision="fp32"
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


@pytest.mark.parametrize(("labels", "model", "kind"), KINDS)
def test_the_labels_decide_the_kind_of_problem_before_training(
    folder, tmp_path, labels, model, kind
):
    """transformers decides by the first batch that it happens to see."""
    built = labelled_trainer(folder, tmp_path, labels, **model)
    assert built.model.config.problem_type == kind
    built.train()
    assert math.isfinite(built.state.log_history[0]["loss"])


@pytest.mark.parametrize(
    ("labels", "model", "message"),
    [
        ([0.5, 1.5], {"num_labels": 2}, "do not fit the outputs of the model"),
        ([[1.0, 0.0], [0.0, 1.0]], {"num_labels": 3}, "do not fit the outputs of the model"),
        (
            [0, 1],
            {"problem_type": "multi_label_classification"},
            "do not fit the outputs of the model",
        ),
        (
            [0.5, 1.5],
            {"num_labels": 1, "problem_type": "single_label_classification"},
            "not those",
        ),
    ],
    ids=["numbers for classes", "too few a row", "classes for many labels", "numbers for a class"],
)
def test_labels_of_another_kind_than_the_model_are_an_error(
    folder, tmp_path, labels, model, message
):
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        labelled_trainer(folder, tmp_path, labels, **model)
    assert caught.value.got and caught.value.do


def test_a_loss_of_ones_own_may_have_labels_of_its_own(folder, tmp_path):
    """Three ordered classes on two outputs: the model's own loss could not learn from these."""

    def ordinal(outputs, batch):
        targets = (batch["labels"][:, None] > torch.arange(2)).float()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs.logits, targets, reduction="sum"
        )
        return loss, targets.numel()

    data = rows(folder, 16).remove_columns("label").add_column("labels", [0, 1, 2, 1] * 4)
    trained = Trainer(
        AutoModelForSequenceClassification.from_pretrained(folder, seed=3),
        TrainingArguments(
            str(tmp_path / "run"), max_steps=2, disable_tqdm=True, device="cpu", precision="fp32"
        ),
        train_dataset=data,
        eval_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(folder),
        loss=ordinal,
    )
    trained.train()
    assert 0.3 < trained.evaluate()["eval_loss"] < 1.5


def test_labels_that_are_nan(folder, tmp_path):
    with pytest.raises(DataError, match="NaN") as caught:
        labelled_trainer(folder, tmp_path, [0.5, float("nan")], num_labels=1)
    assert "row 1" in str(caught.value)


def test_one_number_a_row_in_a_list_is_a_number(folder, tmp_path):
    """Not a class that a row has or has not."""
    built = labelled_trainer(folder, tmp_path, [[0.5], [4.2]], num_labels=1)
    assert built.model.config.problem_type == "regression"


def test_missing_columns(folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = Dataset.from_dict(make_rows(4))
    for data, message in (
        (plain, "tokenize it first"),
        (rows(folder).remove_columns("label"), "no label column"),
    ):
        with pytest.raises(ColumnError, match=message):
            Trainer(model, None, train_dataset=data, processing_class=tokenizer)


def test_an_empty_evaluation_set_is_no_other_evaluation_set(folder, tmp_path):
    made = trainer(folder, tmp_path)
    with pytest.raises(ConfigError, match="no rows"):
        made.evaluate(rows(folder, 4).select([]))


def test_a_trainer_trains_once(folder, tmp_path):
    made = trainer(folder, tmp_path, max_steps=1)
    made.train()
    with pytest.raises(ConfigError, match="trained already"):
        made.train()


def test_a_best_metric_that_is_not_measured(folder, tmp_path):
    settings = {"max_steps": 1, "eval_strategy": "steps", "metric_for_best_model": "acuracy"}
    with pytest.raises(ConfigError, match="eval_loss"):
        trainer(folder, tmp_path, **settings).train()


def test_no_rows_no_collator_no_batch(folder, tmp_path):
    empty = trainer(folder, tmp_path)
    empty.train_dataset = empty.train_dataset.select([])
    with pytest.raises(ConfigError, match="no rows"):
        empty.train()
    with pytest.raises(ConfigError, match="no batch"):
        trainer(folder, tmp_path, n=5, dataloader_drop_last=True).train()
    with pytest.raises(ArgumentError, match="data_collator"):
        Trainer(AutoModelForSequenceClassification.from_pretrained(folder))


# ------------------------------------------------------------------------------------ the arguments


def test_older_spellings_are_understood():
    args = TrainingArguments("x", evaluation_strategy="epoch", warmup_ratio=0.1, no_cuda=True)
    assert args.eval_strategy == "epoch" and args.use_cpu is True
    assert args.warmup(105) == 11


def test_arguments_that_say_what_minift_does_anyway(tmp_path):
    """A script that spells the peer's defaults out runs unchanged."""
    given = {
        "push_to_hub": False,
        "report_to": "none",
        "optim": "adamw_torch",
        "log_level": "passive",
        "save_safetensors": True,
        "dataloader_pin_memory": True,
        "enable_jit_checkpoint": True,
        "gradient_checkpointing": False,
        "tf32": None,
        "remove_unused_columns": True,
        "average_tokens_across_devices": True,
    }
    TrainingArguments(str(tmp_path), **given, learning_rate=np.float32(1e-3)).to_dict()
    assert TrainingArguments("x", report_to=["none"], seed=np.int64(3)).seed == 3


@pytest.mark.parametrize(
    "given",
    [
        {"precision": "fp32", "bf16": True},
        {"precision": "bf16", "tf32": True},
        {"fp16": True, "tf32": True},
        {"use_cpu": True, "device": "other:0"},
        {"eval_steps": 0},
        {"max_grad_norm": -1},
        {"load_best_model_at_end": True},
        {"save_strategy": "best"},
        {"save_total_limit": 0},
        {"label_smoothing_factor": 1.0},
    ],
)
def test_arguments_that_contradict_each_other(given):
    with pytest.raises(ConfigError):
        TrainingArguments("x", **given)


@pytest.mark.parametrize("given", [{"learning_rate": "5e-5"}, {"warmup_ratio": 1.0}])
def test_arguments_of_another_type_or_beyond_their_end(given):
    with pytest.raises(ArgumentError):
        TrainingArguments("x", **given)


@pytest.mark.parametrize(
    ("name", "hint"), [("learning_rat", "learning_rate"), ("push_to_hub", "nothing is uploaded")]
)
def test_an_unknown_argument_is_a_type_error_that_helps(name, hint):
    with pytest.raises(TypeError, match=hint):
        TrainingArguments("x", **{name: 1})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "auto"),
        ({"bf16": True}, "bf16"),
        ({"bf16": False}, "fp32"),
        ({"fp16": True}, "fp16"),
        ({"precision": "fp32"}, "fp32"),
    ],
)
def test_precision_from_its_spellings(given, wanted):
    assert TrainingArguments("x", **given).requested_precision() == wanted


@pytest.mark.parametrize(
    "given",
    [
        {"per_device_train_batch_size": 0},
        {"eval_strategy": "sometimes"},
        {"precision": "fp8"},
        {"bf16": True, "fp16": True},
        {"num_train_epochs": 0},
    ],
)
def test_settings_that_mean_nothing(given):
    with pytest.raises(ConfigError):
        TrainingArguments("x", **given)


# ---------------------------------------------------------------------- other people's models


def test_any_module_with_sums_and_counts_trains(folder, tmp_path):
    class Bag(torch.nn.Module):
        """The mean of word vectors, and a linear layer."""

        def __init__(self):
            super().__init__()
            self.words = torch.nn.EmbeddingBag(45, 8, padding_idx=0)
            self.out = torch.nn.Linear(8, 2)

        def forward(self, input_ids):
            from types import SimpleNamespace

            return SimpleNamespace(logits=self.out(self.words(input_ids)))

    def loss(outputs, batch):
        labels = batch["labels"]
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum"), len(
            labels
        )

    torch.manual_seed(0)
    made = trainer(folder, tmp_path, model=Bag(), loss=loss, max_steps=3)
    assert made.train().global_step == 3
