"""A Trainer that somebody extends: overridden methods, attributes set later, modules of one's own.

What is overridden or set is used, or refused before the first step; nothing is ignored.
"""

import dataclasses
import re
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, WeightedRandomSampler

from minift import Dataset, EarlyStoppingCallback, Trainer, TrainingArguments, hookimpl
from minift.errors import ArgumentError, ConfigError, MiniftError
from minift.models.bert import BertForSequenceClassification
from minift.models.pretrained import SequenceClassifierOutput
from minift.testing import tiny
from minift.training.batches import epoch_plan
from minift.training.compatibility import absent_names

WEIGHTS = torch.tensor([1.0, 5.0])


def made(cls=Trainer, model=None, n=22, folder=None, dropout=0.0, **settings):
    """A Trainer of the given class; what it does not take itself are training arguments."""
    options = {
        name: settings.pop(name)
        for name in ("compute_metrics", "callbacks", "optimizers", "loss", "data_collator")
        if name in settings
    }
    usual = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    usual |= {"precision": "fp32", "device": "cpu", "logging_steps": 1, "save_strategy": "no"}
    return cls(
        tiny.model(dropout) if model is None else model,
        TrainingArguments(None if folder is None else str(folder), **{**usual, **settings}),
        train_dataset=tiny.rows(n),
        eval_dataset=tiny.rows(8),
        **{"data_collator": tiny.collate, **options},
    )


def trained(*args, **settings):
    trainer = made(*args, **settings)
    trainer.train()
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.run.model.parameters()])


def same(one, other):
    return torch.equal(weights(one), weights(other))


def losses(trainer, key="loss"):
    return [record[key] for record in trainer.state.log_history if key in record]


def weighted_sum(outputs, batch):
    """The same as a loss= of minift's own: weighted sum, and number of rows."""
    labels = batch["labels"]
    return F.cross_entropy(outputs.logits, labels, WEIGHTS, reduction="sum"), len(labels)


# ------------------------------------------------------------------------------------ compute_loss


class Weighted(Trainer):
    """Class weights as most people write them, with the number of items."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, WEIGHTS, reduction="sum")
        loss = loss / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


class WeightedMean(Trainer):
    """The same without the number: a mean over the rows of the micro-batch. Older signature."""

    def compute_loss(self, model, inputs, return_outputs=False):
        labels = inputs.get("labels")
        outputs = model(**inputs)
        losses = F.cross_entropy(outputs.logits, labels, WEIGHTS, reduction="none")
        loss = losses.mean()
        return (loss, outputs) if return_outputs else loss


class AnyArguments(Trainer):
    def compute_loss(self, model, inputs, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, WEIGHTS, reduction="none").mean()
        return (loss, outputs) if kwargs["return_outputs"] else loss


class LossOnly(Trainer):
    """It cannot return outputs; evaluation gets them from the model."""

    def compute_loss(self, model, inputs):
        logits = model(inputs["input_ids"], inputs["attention_mask"]).logits
        return F.cross_entropy(logits, inputs["labels"], WEIGHTS, reduction="none").mean()


KINDS = [Weighted, WeightedMean, AnyArguments, LossOnly]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_of_a_subclass_trains_and_evaluates(kind):
    by_function = made(loss=weighted_sum)
    by_method = made(kind)
    before = by_function.evaluate()["eval_loss"], by_method.evaluate()["eval_loss"]
    assert before[1] == pytest.approx(before[0], rel=1e-6)
    by_function.train()
    by_method.train()
    assert losses(by_method) == pytest.approx(losses(by_function), rel=1e-5)
    assert losses(by_method) != pytest.approx(losses(trained()), rel=1e-2)
    logits = by_method.predict(tiny.rows(8)).predictions
    assert logits == pytest.approx(by_function.predict(tiny.rows(8)).predictions, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_however_a_step_is_cut_into_micro_batches(kind):
    """The last step of an epoch has 5 rows of 8: a mean of means would be another number."""
    whole = trained(kind, n=21, per_device_train_batch_size=8, max_steps=6)
    for size, group in ((4, 2), (2, 4), (1, 8), (3, 3)):
        if size * group == 8:
            settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": group}
            cut = trained(kind, n=21, max_steps=6, **settings)
            assert losses(cut)[0] == pytest.approx(losses(whole)[0], rel=1e-6)
            assert losses(cut) == pytest.approx(losses(whole), rel=1e-5)
            norms = losses(cut, "grad_norm")
            assert norms[0] == pytest.approx(losses(whole, "grad_norm")[0], rel=1e-6)


def test_running_out_of_memory_changes_nothing_of_it(monkeypatch):
    whole = trained(Weighted)

    class Small(Weighted):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if len(inputs["labels"]) > 2:
                raise torch.OutOfMemoryError("too much")
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    assert losses(trained(Small)) == pytest.approx(losses(whole), rel=1e-5)


def test_unlabelled_rows_do_not_count_in_it():
    """Rows labelled -100, also where a whole micro-batch has no other."""

    class Masked(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs.logits, inputs["labels"])
            return (loss, outputs) if return_outputs else loss

    labels = [-100, -100, 1, 0, -100, 1, 1, 0]
    data = tiny.rows(8).remove_columns("labels").add_column("labels", labels)
    settings = {"train_sampling_strategy": "sequential", "max_steps": 2}

    def run(cls, size, group):
        accumulation = {"per_device_train_batch_size": size, "gradient_accumulation_steps": group}
        trainer = made(cls, **settings, **accumulation)
        trainer.train_dataset = data
        trainer.train()
        return losses(trainer)

    assert run(Masked, 2, 4) == pytest.approx(run(Trainer, 8, 1), rel=1e-5)


def test_calling_the_trainers_own_loss_adds_to_it():
    class Plain(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    class Penalty(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            loss = loss + 0.5
            return (loss, outputs) if return_outputs else loss

    expected = losses(trained())
    settings = {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2}
    assert losses(trained(Plain)) == pytest.approx(expected, rel=1e-6)
    assert losses(trained(Penalty)) == pytest.approx([loss + 0.5 for loss in expected], rel=1e-6)
    assert losses(trained(Plain, **settings)) == pytest.approx(
        losses(trained(**settings)), rel=1e-6
    )
    smooth = {"label_smoothing_factor": 0.2}
    assert losses(trained(Plain, **smooth)) == pytest.approx(losses(trained(**smooth)), rel=1e-6)


def test_a_loss_that_is_assigned_is_used():
    trainer = made()

    def compute_loss(model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = weighted_sum(outputs, inputs)[0] / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    trainer.compute_loss = compute_loss
    trainer.train()
    assert losses(trainer) == pytest.approx(losses(trained(Weighted)), rel=1e-6)


def test_the_example_of_the_transformers_pages_runs_as_it_stands():
    """Words for word, with `get` of the outputs and the device of the model."""

    class CustomTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            # forward pass
            outputs = model(**inputs)
            logits = outputs.get("logits")
            # compute custom loss for 2 labels with different weights
            reduction = "none"
            loss_fct = torch.nn.CrossEntropyLoss(
                weight=torch.tensor([1.0, 5.0], device=model.device), reduction=reduction
            )
            loss = loss_fct(logits.view(-1, self.model.config.num_labels), labels.view(-1)).mean()
            return (loss, outputs) if return_outputs else loss

    custom = trained(CustomTrainer)
    assert losses(custom) == pytest.approx(losses(trained(Weighted)), rel=1e-6)
    assert custom.is_world_process_zero()


def test_where_labels_stand_in_a_batch_does_not_matter():
    def first(rows):
        batch = tiny.collate(rows)
        return {"labels": batch.pop("labels"), **batch}

    assert same(trained(Weighted, data_collator=first), trained(Weighted))


def test_without_labels_all_rows_count():
    """The loss is of the inputs alone; the collator's label has another name."""

    def renamed(rows):
        batch = tiny.collate(rows)
        return {"target": batch.pop("labels"), **batch}

    class Renamed(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            target = inputs.pop("target")
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs.logits, target)
            return (loss, outputs) if return_outputs else loss

    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    expected = losses(trained(n=21))
    assert losses(trained(Renamed, n=21, data_collator=renamed)) == pytest.approx(expected)
    assert losses(trained(Renamed, n=21, data_collator=renamed, **cut)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize(
    "returned",
    [
        lambda outputs: None,
        lambda outputs: 3.0,
        lambda outputs: F.cross_entropy(outputs.logits, torch.zeros(4).long(), reduction="none"),
        lambda outputs: {"loss": outputs.loss},
    ],
    ids=["None", "float", "a loss a row", "dict"],
)
def test_a_loss_that_is_no_number_is_refused(returned):
    class Odd(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            return returned(model(**inputs))

    odd = made(Odd)
    before = weights(odd)
    with pytest.raises(ConfigError, match="no loss to train by"):
        odd.train()
    assert torch.equal(weights(odd), before)


# ------------------------------------------------------------------- modules of one's own, outputs


class Own(torch.nn.Module):
    """A module that returns what `form` makes of loss and logits."""

    def __init__(self, form):
        super().__init__()
        self.inner, self.form = tiny.model(), form

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.inner(input_ids, attention_mask).logits
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return self.form(loss, logits)


Named = namedtuple("Named", "logits loss")
FORMS = {
    "tuple": lambda loss, logits: (loss, logits),
    "tuple with more": lambda loss, logits: (loss, logits, logits * 2),
    "tuple without None": lambda loss, logits: (logits,) if loss is None else (loss, logits),
    "list": lambda loss, logits: [loss, logits],
    "namedtuple": lambda loss, logits: Named(logits, loss),
    "dict": lambda loss, logits: {"loss": loss, "logits": logits},
    "ordered": lambda loss, logits: OrderedDict(loss=loss, logits=logits, hidden_states=None),
    "namespace": lambda loss, logits: SimpleNamespace(loss=loss, logits=logits),
    "output": lambda loss, logits: SequenceClassifierOutput(logits, loss),
    "one number": lambda loss, logits: (
        (loss if loss is None else loss[None], logits)[1:]
        if loss is None
        else {"loss": loss[None], "logits": logits}
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_module_may_return_its_loss_in_any_usual_form(form):
    """As the mean over its batch: however a step is cut, the run is that of minift's own model."""
    expected = losses(trained(n=21, per_device_train_batch_size=4))
    own = made(model=Own(form), n=21, per_device_train_batch_size=4)
    reference = made(n=21, per_device_train_batch_size=4)
    assert own.evaluate()["eval_loss"] == pytest.approx(reference.evaluate()["eval_loss"])
    own.train()
    assert losses(own) == pytest.approx(expected, rel=1e-5)
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert losses(trained(model=Own(form), n=21, **cut)) == pytest.approx(expected, rel=1e-5)
    own.data_collator = lambda rows: without_labels(
        tiny.collate([{**r, "labels": 0} for r in rows])
    )
    logits = own.predict(tiny.rows(8).remove_columns("labels")).predictions
    own.data_collator = tiny.collate
    assert logits == pytest.approx(own.predict(tiny.rows(8)).predictions)


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


def replaced(change):
    class Changed(BertForSequenceClassification):
        def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):
            outputs = super().forward(input_ids, attention_mask, token_type_ids, labels=labels)
            return outputs if labels is None else change(outputs, labels)

    model = Changed(tiny.model().config)
    model.load_state_dict(tiny.model().state_dict())
    return model


def assigned(outputs, labels):
    outputs.loss = F.cross_entropy(outputs.logits, labels, WEIGHTS, reduction="none").mean()
    return outputs


def doubled(outputs, labels):
    outputs.loss *= 2
    return outputs


def by_name(outputs, labels):
    outputs["loss"] = outputs["loss"] * 2
    return outputs


def doubled_in_place(outputs, labels):
    outputs.loss.mul_(2)
    return outputs


def test_a_model_that_gives_another_loss_trains_by_that_one():
    expected = trained(loss=weighted_sum)
    other = made(model=replaced(assigned))
    assert other.evaluate()["eval_loss"] == pytest.approx(made(Weighted).evaluate()["eval_loss"])
    other.train()
    assert losses(other) == pytest.approx(losses(expected), rel=1e-5)
    first = losses(trained())[0]
    for twice in (doubled, by_name):
        assert losses(trained(model=replaced(twice)))[0] == pytest.approx(2 * first, rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        doubled_in_place,
        lambda outputs, labels: dataclasses.replace(outputs, loss=outputs.loss * 2),
        lambda outputs, labels: SimpleNamespace(**{**vars(outputs), "loss": outputs.loss + 1}),
    ],
    ids=["in place", "replace", "copied"],
)
def test_a_loss_that_contradicts_its_sum_is_refused(change):
    contradiction = made(model=replaced(change))
    before = weights(contradiction)
    with pytest.raises(ConfigError, match="not the mean"):
        contradiction.train()
    assert torch.equal(weights(contradiction), before)
    with pytest.raises(ConfigError, match="not the mean"):
        contradiction.evaluate()


@pytest.mark.parametrize(
    "form",
    [
        lambda loss, logits: logits,
        lambda loss, logits: (logits,),
        lambda loss, logits: {"scores": logits},
        lambda loss, logits: SequenceClassifierOutput(logits),
        lambda loss, logits: None,
    ],
    ids=["tensor", "tuple", "dict", "output", "None"],
)
def test_a_module_without_a_loss_is_refused_before_the_first_step(form):
    with pytest.raises(ConfigError, match="no loss to train by") as caught:
        trained(model=Own(form))
    assert "loss=" in caught.value.do


def test_a_module_without_logits_trains_and_cannot_be_evaluated():
    silent = trained(model=Own(lambda loss, logits: {"loss": loss}))
    assert losses(silent) == pytest.approx(losses(trained()), rel=1e-5)
    with pytest.raises(ConfigError, match="no logits"):
        silent.evaluate()


def test_a_bare_tensor_of_logits_serves_a_loss_function():
    def loss(logits, batch):
        return F.cross_entropy(logits, batch["labels"], reduction="sum"), len(batch["labels"])

    tensor = trained(model=Own(lambda loss, logits: logits), loss=loss)
    assert losses(tensor) == pytest.approx(losses(trained()), rel=1e-5)
    assert tensor.predict(tiny.rows(8)).predictions.shape == (8, 2)


# ----------------------------------------------------------------------------- loaders and samplers


class Oversampled(Trainer):
    """Row 3 is most of what is drawn; a generator of its own, which goes on over the epochs."""

    def get_train_dataloader(self):
        chances = [100.0 if i == 3 else 1.0 for i in range(len(self.train_dataset))]
        generator = torch.Generator().manual_seed(7)
        sampler = WeightedRandomSampler(chances, 24, generator=generator)
        size = self.args.per_device_train_batch_size
        return DataLoader(self.train_dataset, size, sampler=sampler, collate_fn=self.data_collator)


class OversampledByChance(Trainer):
    """The same with torch's global generator, and as a sampler."""

    def _get_train_sampler(self, train_dataset=None):
        chances = [100.0 if i == 3 else 1.0 for i in range(len(self.train_dataset))]
        return WeightedRandomSampler(chances, 24)


def rows_of(trainer, epoch):
    return [int(row) for step in epoch_plan(trainer.run, epoch) for part in step for row in part]


@pytest.mark.parametrize("kind", [Oversampled, OversampledByChance])
def test_a_sampler_of_a_subclass_decides_which_rows_are_trained_on(kind):
    seen = []

    class Watched(kind):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            if not return_outputs:
                seen.extend(inputs["input_ids"][:, 1].tolist())
            return super().compute_loss(model, inputs, return_outputs, **kwargs)

    trainer = trained(Watched, max_steps=12)
    assert trainer.state.epoch == 2.0 and len(seen) == 48
    assert [number - tiny.NUMBERS for number in seen] == rows_of(trainer, 0) + rows_of(trainer, 1)
    assert seen.count(tiny.NUMBERS + 3) > 30
    assert rows_of(trainer, 0) != rows_of(trainer, 1)  # another draw in each epoch
    assert not same(trainer, trained(max_steps=12))
    torch.manual_seed(5)  # whatever was drawn before
    assert same(trained(kind, max_steps=12), trained(kind, max_steps=12))


@pytest.mark.parametrize("kind", [Oversampled, OversampledByChance])
@pytest.mark.parametrize("at", [3, 6, 8])
def test_a_run_with_a_sampler_of_its_own_resumes_to_the_bit(kind, at, tmp_path):
    settings = {"max_steps": 12, "save_strategy": "steps", "save_steps": at, "dropout": 0.1}
    whole = trained(kind, folder=tmp_path / "whole", save_total_limit=None, **settings)
    resumed = made(kind, folder=tmp_path / "other", **settings)
    resumed.train(resume_from_checkpoint=tmp_path / "whole" / f"checkpoint-{at}")
    assert same(whole, resumed)
    with pytest.raises(ConfigError, match="rows in an epoch"):  # another sampler, other rows
        made(folder=tmp_path / "third", **settings).train(
            resume_from_checkpoint=tmp_path / "whole" / f"checkpoint-{at}"
        )


def test_a_loader_that_shuffles_is_shuffled_as_the_run_is():
    class Shuffled(Trainer):
        def get_train_dataloader(self):
            return DataLoader(self.train_dataset, 4, shuffle=True, collate_fn=self.data_collator)

    class Wrapped(Trainer):
        def get_train_dataloader(self):
            return super().get_train_dataloader()

    class Copied(Trainer):  # as the code of transformers is copied
        def get_train_dataloader(self):
            sampler, collate = self._get_train_sampler(), self.data_collator
            size = self.args.per_device_train_batch_size
            return DataLoader(self.train_dataset, size, sampler=sampler, collate_fn=collate)

    plain = trained(max_steps=12)
    for kind in (Shuffled, Wrapped, Copied):
        assert same(plain, trained(kind, max_steps=12)), kind


def test_rows_in_their_own_order_by_a_sampler_or_a_batch_sampler():
    class Ordered(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return SequentialSampler(self.train_dataset)

    class Batched(Trainer):
        def get_train_dataloader(self):
            batches = BatchSampler(SequentialSampler(self.train_dataset), 4, drop_last=False)
            data, collate = self.train_dataset, self.data_collator
            return DataLoader(data, batch_sampler=batches, collate_fn=collate)

    expected = trained(train_sampling_strategy="sequential", max_steps=8)
    assert same(trained(Ordered, max_steps=8), expected)
    assert same(trained(Batched, max_steps=8), expected)


def test_a_loader_may_have_other_rows_and_a_collator_of_its_own():
    """Which reads a column that the model does not take."""
    texts = tiny.rows(12).add_column("text", [f"row {i}" for i in range(12)])
    seen = []

    def collate(rows):
        seen.extend(row["text"] for row in rows)
        return tiny.collate(rows)

    class Other(Trainer):
        def get_train_dataloader(self):
            return DataLoader(texts, 3, collate_fn=collate)

    other = made(Other, max_steps=4)
    other.train_dataset = None
    other.train()
    assert seen == [f"row {i}" for i in range(12)] and other.state.epoch == 1.0


def test_set_epoch_of_a_sampler_is_called():
    asked = []

    class Turning(SequentialSampler):
        def set_epoch(self, epoch):
            asked.append(epoch)

    class Turned(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return Turning(self.train_dataset)

    trained(Turned, max_steps=12)
    assert asked == [0, 1]


@pytest.mark.parametrize(
    "loader",
    [
        lambda data: None,
        lambda data: [tiny.collate([data[0]])],
        lambda data: DataLoader(list(data), 4, collate_fn=tiny.collate),
        lambda data: DataLoader(data, batch_size=None),
        lambda data: type("Own", (DataLoader,), {"__iter__": lambda self: iter(())})(data, 4),
    ],
    ids=["nothing", "a list", "a list of rows", "no batches", "an iterator of its own"],
)
@pytest.mark.parametrize("kind", ["get_train_dataloader", "get_eval_dataloader"])
def test_a_loader_whose_batches_cannot_be_repeated_is_refused(loader, kind):
    class Odd(Trainer):
        pass

    setattr(Odd, kind, lambda self, *_: loader(self.train_dataset))
    odd = made(Odd)
    with pytest.raises(ConfigError, match="must return a DataLoader"):
        odd.train() if kind == "get_train_dataloader" else odd.evaluate()


def test_epochs_of_unequal_length_are_refused():
    class Growing(BatchSampler):
        def __iter__(self):
            self.batch_size += 1
            return super().__iter__()

    class Grown(Trainer):
        def get_train_dataloader(self):
            batches = Growing(SequentialSampler(self.train_dataset), 3, drop_last=False)
            data, collate = self.train_dataset, self.data_collator
            return DataLoader(data, batch_sampler=batches, collate_fn=collate)

    with pytest.raises(ConfigError, match="as many batches"):
        trained(Grown, max_steps=12)


def test_rows_to_evaluate_are_those_of_the_loader_in_its_order():
    order = [5, 2, 7, 2]

    class Some(Trainer):
        def get_eval_dataloader(self, eval_dataset=None):
            data = self.eval_dataset if eval_dataset is None else eval_dataset
            return DataLoader(data, 2, sampler=order, collate_fn=self.data_collator)

        def get_test_dataloader(self, test_dataset):
            return self.get_eval_dataloader(test_dataset)

    kept = []
    some, plain = made(Some, compute_metrics=lambda p: kept.append(p) or {}), made()
    part = plain.evaluate(tiny.rows(8).select(order))["eval_loss"]
    assert some.evaluate()["eval_loss"] == pytest.approx(part, rel=1e-6)
    whole = plain.predict(tiny.rows(8)).predictions
    assert kept[0].predictions == pytest.approx(whole[order], abs=1e-6)
    assert kept[0].rows["input_ids"] == tiny.rows(8).select(order)["input_ids"]
    assert some.predict(tiny.rows(8)).predictions == pytest.approx(whole[order], abs=1e-6)


def test_the_trainers_loaders_may_be_looked_at():
    """As chapter 8 of the course does."""
    trainer = made()
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 4 and len(trainer.get_train_dataloader()) == 6
    outputs = trainer.model(**batch)
    outputs.loss.backward()
    trainer.create_optimizer()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    sizes = [len(batch["labels"]) for batch in trainer.get_eval_dataloader()]
    assert sizes == [8]


# ------------------------------------------------------------------------ optimizers and schedules


class Descent(Trainer):
    def create_optimizer(self):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate)
        return self.optimizer


class Steps(Trainer):
    def create_scheduler(self, num_training_steps, optimizer=None):
        assert num_training_steps == 6
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        return self.lr_scheduler


class Both(Trainer):
    def create_optimizer_and_scheduler(self, num_training_steps):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate)
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)


def test_an_optimizer_and_a_schedule_of_a_subclass_are_used():
    sgd, steps = trained(Descent), trained(Steps)
    assert type(sgd.optimizer) is torch.optim.SGD is type(sgd.run.optimizer)
    assert losses(sgd, "learning_rate") == losses(trained(), "learning_rate")
    rates = losses(steps, "learning_rate")
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    model = tiny.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    assert same(trained(Both), trained(model=model, optimizers=(optimizer, schedule)))


def test_an_optimizer_that_is_only_returned_is_used():
    class Returned(Trainer):
        def create_optimizer(self):
            return torch.optim.SGD(self.model.parameters(), lr=1e-3)

    assert same(trained(Returned), trained(Descent))


def test_an_optimizer_of_other_parameters_or_none_is_refused():
    class NoSchedule(Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            return None

    other = torch.optim.SGD(tiny.model().parameters(), lr=0.1)
    for odd in (made(NoSchedule), made(optimizers=(other, None))):
        with pytest.raises(ConfigError, match="no schedule, or no optimizer"):
            odd.train()


# --------------------------------------------------------------------- evaluate, log and save_model


class Measured(Trainer):
    """Adds a metric, as large as the step is early, and takes another way to log."""

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return {**metrics, f"{metric_key_prefix}_early": -self.state.global_step}

    def log(self, logs, start_time=None):
        logs["doubled"] = 2 * logs.get("loss", 0.0)
        super().log(logs, start_time)


EVALUATING = {"eval_strategy": "steps", "eval_steps": 2}


def test_metrics_that_evaluate_adds_decide_about_the_best_model(tmp_path):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "early"}
    trainer = trained(Measured, folder=tmp_path, **EVALUATING, **best)
    assert trainer.state.metric_history == [-2, -4, -6] and trainer.state.best_step == 2
    with pytest.raises(ConfigError, match="no number that is measured"):
        trained(folder=tmp_path / "other", **EVALUATING, **best)


def test_everything_that_is_logged_goes_through_log():
    trainer = trained(Measured, **EVALUATING)
    history = trainer.state.log_history
    assert all("doubled" in record for record in history) and len(history) == 6 + 3 + 1
    assert history[0]["doubled"] == 2 * history[0]["loss"]
    assert same(trainer, trained())


def test_what_save_model_writes_is_in_the_checkpoints_too(tmp_path):
    class Noted(Trainer):
        def save_model(self, output_dir=None, _internal_call=False):
            super().save_model(output_dir, _internal_call)
            (tmp_path / "run" if output_dir is None else output_dir).joinpath(
                "note.txt"
            ).write_text(str(self.state.global_step))

    class Replaced(Trainer):
        def save_model(self, output_dir=None):
            torch.save({}, output_dir / "adapter.bin")  # and no model

    settings = {"save_strategy": "steps", "save_steps": 3}
    noted = trained(Noted, folder=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "checkpoint-3" / "note.txt").read_text() == "3"
    noted.save_model()
    assert (tmp_path / "run" / "note.txt").read_text() == "6"
    trained(Replaced, folder=tmp_path / "replaced", **settings)
    folder = tmp_path / "replaced" / "checkpoint-3"
    assert (folder / "adapter.bin").exists()
    resumed = made(Replaced, folder=tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=folder)
    assert same(resumed, noted)


# ------------------------------------------------------------------------------ what is not called


@pytest.mark.parametrize("name", sorted(absent_names()))
def test_a_method_that_would_not_be_called_is_refused_by_name(name):
    kind = type("Extended", (Trainer,), {name: lambda self, *args: None})
    with pytest.raises(ArgumentError, match=f"Extended.{name} would never be called") as caught:
        made(kind)
    assert len(caught.value.do) > 20


def test_methods_of_a_mixin_and_methods_that_are_arguments_are_refused():
    class Mixin:
        def training_step(self, model, inputs, num_items_in_batch=None):
            return None

    with pytest.raises(ArgumentError, match=r"Mixin.training_step .*\n.*compute_loss"):
        made(type("Mixed", (Mixin, Trainer), {}))
    with pytest.raises(ArgumentError, match="pass compute_metrics="):
        made(type("Measured", (Trainer,), {"compute_metrics": lambda self, p: {}}))
    helper = type("Helped", (Trainer,), {"my_helper": lambda self: 1, "_own": 2})
    assert made(helper).my_helper() == 1


# ------------------------------------------------------------------------- attributes that are set


def test_an_attribute_that_is_set_counts_as_if_it_had_been_passed():
    data = tiny.rows(16)
    plain = Trainer(
        tiny.model(),
        made(max_steps=4).args,
        data_collator=tiny.collate,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda p: {"rows": len(p.predictions)},
    )
    plain.train()
    late = made(model=tiny.model(0.5), max_steps=4, data_collator=lambda rows: {})
    late.model, late.train_dataset, late.eval_dataset = tiny.model(), data, data
    late.data_collator = tiny.collate
    late.compute_metrics = lambda p: {"rows": len(p.predictions)}
    late.train()
    assert same(plain, late)
    assert late.evaluate()["eval_rows"] == 16 == plain.evaluate()["eval_rows"]
    late.compute_metrics = None
    assert "eval_rows" not in late.evaluate()


def test_an_optimizer_that_is_set_is_used():
    late = made()
    late.optimizer = torch.optim.SGD(late.model.parameters(), lr=1e-3)
    late.train()
    assert type(late.run.optimizer) is torch.optim.SGD and same(late, trained(Descent))


def test_settings_that_are_changed_are_used_or_refused():
    late = made(max_steps=3, learning_rate=1.0)
    late.args.max_steps, late.args.learning_rate = 6, 1e-3
    late.args.per_device_train_batch_size, late.args.label_smoothing_factor = 2, 0.1
    late.train()
    settings = {"per_device_train_batch_size": 2, "label_smoothing_factor": 0.1}
    assert same(late, trained(**settings))
    for name, value in (("bf16", True), ("precision", "bf16"), ("use_cpu", True)):
        late = made()
        setattr(late.args, name, value)
        with pytest.raises(ConfigError, match=f"args.{name} was changed|at once"):
            late.train()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train_datset", "train_dataset"),
        ("colour", "no attribute 'colour'"),
        ("label_names", "name the labels"),
        ("model_accepts_loss_kwargs", "the mean is always over all items"),
        ("training_step", "override compute_loss"),
    ],
)
def test_an_attribute_that_nothing_reads_is_refused(name, message):
    with pytest.raises(ArgumentError, match=message):
        setattr(made(), name, 1)
    if name not in ("colour", "train_datset"):  # a subclass has others of its own
        with pytest.raises(ArgumentError, match=message):
            setattr(made(Weighted), name, 1)


def test_a_subclass_has_attributes_of_its_own():
    class Several(Trainer):
        def __init__(self, *args, **kwargs):
            self.class_weights = WEIGHTS
            super().__init__(*args, **kwargs)
            self.eval_datasets, self.teacher = [], None

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            self.calls = getattr(self, "calls", 0) + 1
            return super().compute_loss(model, inputs, return_outputs)

    assert trained(Several).calls == 6


def test_wrong_values_are_refused_where_they_are_set_and_when_training():
    late = made()
    with pytest.raises(MiniftError, match="must be a minift Dataset"):
        late.train_dataset = [1, 2]
    with pytest.raises(MiniftError, match="must be a minift Dataset"):
        late.train()
    with pytest.raises(ConfigError, match="make a new Trainer"):
        made().args = TrainingArguments(None)


def test_what_a_run_began_with_cannot_change_while_it_runs():
    refused = []

    class Restless(Trainer):
        def log(self, logs, start_time=None):
            super().log(logs, start_time)
            if self.recorder.status == "running" and not refused:
                for name in ("model", "train_dataset", "optimizer", "lr_scheduler"):
                    with pytest.raises(ConfigError, match=f"{name} cannot change"):
                        setattr(self, name, None)
                    refused.append(name)
                self.compute_metrics = lambda p: {"late": 1.0}

    restless = trained(Restless, **EVALUATING)
    assert len(refused) == 4 and same(restless, trained())
    assert losses(restless, "eval_late") == [1.0, 1.0, 1.0]


# -------------------------------------------------------------------------------- modes, callbacks


def test_whoever_leaves_the_model_in_eval_mode_does_not_switch_dropout_off():
    """Also a part of it alone, and also between two micro-batches of an update."""
    model = {}

    class Hook:
        @hookimpl
        def minift_on_evaluate(self, run, result):
            run.model.eval()

        @hookimpl
        def minift_on_step_end(self, run):
            run.model.bert.encoder.eval()

    class Teacher(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            result = super().compute_loss(model, inputs, return_outputs)
            model.eval()
            return result

    settings = {"dropout": 0.3, "gradient_accumulation_steps": 2, **EVALUATING}
    plain = trained(compute_metrics=lambda p: {"seen": 1.0}, **settings)
    looking = made(compute_metrics=lambda p: model["it"].eval() and {"seen": 1.0}, **settings)
    model["it"] = looking.model
    looking.train()
    assert same(plain, looking)
    assert same(plain, trained(callbacks=[Hook()], **settings))
    assert losses(trained(Teacher, **settings)) == pytest.approx(losses(plain), rel=1e-5)
    assert not same(plain, trained(**{**settings, "dropout": 0.0}))


class Decides:
    @hookimpl
    def minift_should_stop(self, run):
        return None


@pytest.mark.parametrize(
    "settings",
    [
        {"callbacks": [EarlyStoppingCallback(1)]},
        {"callbacks": [EarlyStoppingCallback]},
        {"callbacks": [Decides()]},
        {"callbacks": [Decides()], "eval_strategy": "steps", "eval_delay": 7},
        {"callbacks": [Decides()], "eval_strategy": "epoch", "eval_delay": 2},
        {"metric_for_best_model": "accuracy"},
        {"greater_is_better": False},
    ],
)
def test_what_would_never_be_asked_is_refused(settings):
    never = made(**settings)
    before = weights(never)
    with pytest.raises(ConfigError, match="looks at evaluations, and this run has none"):
        never.train()
    assert torch.equal(weights(never), before)


def test_the_last_evaluation_is_enough():
    late = {"eval_strategy": "steps", "eval_delay": 6, "eval_steps": 4}
    assert len(losses(trained(callbacks=[Decides()], **late), "eval_loss")) == 1


@pytest.mark.parametrize(
    ("scores", "threshold", "reason"),
    [
        ([1.0, 0.95, 0.91], 0.1, "has not improved by more than 0.1 for 2 .* its best is 0.91"),
        ([1.0, 1.0, 1.2], 0.0, "has not improved for 2 .* its best is 1.0"),
        ([float("nan"), float("nan")], 0.0, "was not a number in 2 evaluation"),
    ],
)
def test_early_stopping_says_what_happened(scores, threshold, reason):
    args = SimpleNamespace(metric_for_best_model=None, greater_is_better=None)
    run = SimpleNamespace(args=args, state=SimpleNamespace(metric_history=scores))
    said = EarlyStoppingCallback(2, threshold).minift_should_stop(run)
    assert re.search(reason, said), said


def test_the_epoch_is_the_share_of_its_micro_batches():
    """22 rows are six micro-batches of four: updates of 4, 2; then 4, 2."""
    trainer = trained(gradient_accumulation_steps=4, max_steps=4)
    assert losses(trainer, "epoch")[:4] == pytest.approx([4 / 6, 1, 1 + 4 / 6, 2], abs=1e-4)
    assert trainer.state.epoch == 2.0


def test_a_dataset_with_nothing_but_test_labels_is_no_training_set():
    """Rows of a loader are checked as those of a Trainer are."""
    hidden = tiny.rows(8).remove_columns("labels").add_column("labels", [-1] * 8)

    class Hidden(Trainer):
        def get_train_dataloader(self):
            return DataLoader(hidden, 4, collate_fn=self.data_collator)

    with pytest.raises(MiniftError, match="no class for"):
        trained(Hidden)


def test_numpy_is_not_drawn_from():
    """By anything that asks a sampler: its generators are put back."""
    np.random.seed(3)
    expected = np.random.rand(2)
    np.random.seed(3)
    trained(OversampledByChance)
    assert np.array_equal(np.random.rand(2), expected)
    assert isinstance(made().train_dataset, Dataset)
