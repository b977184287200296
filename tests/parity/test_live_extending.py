"""A Trainer that somebody extends against transformers': one subclass, one module, both Trainers.

Rows in their own order, fp32, CPU, one process, no accumulation (there transformers' loss differs).
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers.modeling_outputs import SequenceClassifierOutput

import minift
from minift.testing import tiny
from minift.training.compatibility import absent_names

STEPS, SIZE, ROWS = 10, 4, 22
WEIGHTS = torch.tensor([1.0, 5.0])


class Module(torch.nn.Module):
    """A module of one's own, whose outputs are what `form` makes of them."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(3)
        self.embed = torch.nn.EmbeddingBag(80, 16, padding_idx=0)
        self.head = torch.nn.Linear(16, 2)
        self.form = form
        self.config = transformers.PretrainedConfig(num_labels=2)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.embed(input_ids))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return self.form(loss, logits)


def as_output(loss, logits):
    return SequenceClassifierOutput(loss=loss, logits=logits)


FORMS = {
    "output": as_output,
    "tuple": lambda loss, logits: (loss, logits),
    "dict": lambda loss, logits: {"loss": loss, "logits": logits},
    "another loss": lambda loss, logits: SequenceClassifierOutput(
        loss=None if loss is None else 3 * loss, logits=logits
    ),
}


class Weighted:
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, WEIGHTS, reduction="none").mean()
        return (loss, outputs) if return_outputs else loss


class Penalty:
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        loss = loss + 0.1 * model.head.weight.square().sum()
        return (loss, outputs) if return_outputs else loss


class Descent:
    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        return self.optimizer


class Schedule:
    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)
        return self.lr_scheduler


class Both:
    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        factor = 1 / num_training_steps
        rate = lambda step: 1 - factor * step  # noqa: E731
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)
        return self.lr_scheduler


class Loader:
    def get_train_dataloader(self):
        order = [0, 3, 3, 5, 7, 7, 7, 9, 2, 21]
        data, collate = self.train_dataset, self.data_collator
        return torch.utils.data.DataLoader(data, 4, sampler=order, collate_fn=collate)


class Sampled:
    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(range(9, 0, -1))


class EvalLoader:
    def get_eval_dataloader(self, eval_dataset=None):
        data, collate = self.eval_dataset, self.data_collator
        return torch.utils.data.DataLoader(data, 3, sampler=[4, 1, 6], collate_fn=collate)


class Evaluates:
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        metrics["eval_step"] = float(self.state.global_step)
        return metrics


class Logs:
    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            logs["double"] = 2 * logs["loss"]
        super().log(logs, *args, **kwargs)


def as_rows(data):
    return [data[i] for i in range(len(data))]


def run(library, mixin, form, tmp_path, **settings):
    """Train; return the trainer, its losses, what it evaluates to and its weights."""
    base = library.Trainer
    kind = type("Extended", (mixin, base), {}) if mixin else base
    usual = {"per_device_train_batch_size": SIZE, "max_steps": STEPS, "learning_rate": 1e-2}
    usual |= {"logging_steps": 1, "save_strategy": "no", "train_sampling_strategy": "sequential"}
    usual |= {"per_device_eval_batch_size": 8, "use_cpu": True, "disable_tqdm": True}
    usual |= {"report_to": "none", "precision": "fp32"} if library is minift else {}
    usual |= {"report_to": "none"}
    train, test = tiny.rows(ROWS), tiny.rows(8)
    peer = library is transformers
    trainer = kind(
        Module(FORMS[form]),
        library.TrainingArguments(str(tmp_path / library.__name__), **usual, **settings),
        data_collator=tiny.collate,
        train_dataset=as_rows(train) if peer else train,
        eval_dataset=as_rows(test) if peer else test,
        compute_metrics=lambda p: {"mean": float(np.mean(p.predictions))},
    )
    trainer.train()
    history = trainer.state.log_history
    losses = {
        key: [record[key] for record in history if key in record]
        for key in ("loss", "eval_loss", "eval_mean", "double", "learning_rate", "epoch")
    }
    parameters = [p.detach().flatten() for p in trainer.model.parameters()]
    return trainer, losses, trainer.evaluate(), torch.cat(parameters)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mixin", [None, Weighted, Penalty], ids=["plain", "weighted", "penalty"])
def test_a_loss_is_that_of_transformers(form, mixin, tmp_path):
    if mixin and form in ("tuple", "dict"):
        pytest.skip("it reads outputs.logits")
    compare(mixin, form, tmp_path)


@pytest.mark.parametrize(
    "mixin", [Descent, Schedule, Both, Loader, Sampled, EvalLoader, Evaluates, Logs]
)
def test_an_overridden_method_does_what_it_does_in_transformers(mixin, tmp_path):
    compare(mixin, "output", tmp_path, eval_strategy="steps", eval_steps=4)


def compare(mixin, form, tmp_path, **settings):
    ours, our_losses, our_metrics, our_weights = run(minift, mixin, form, tmp_path, **settings)
    theirs, losses, metrics, weights = run(transformers, mixin, form, tmp_path, **settings)
    for key, values in losses.items():
        assert our_losses[key] == pytest.approx(values, rel=2e-4), key
    for key in [key for key in ("eval_loss", "eval_mean", "eval_step") if key in metrics]:
        assert our_metrics[key] == pytest.approx(metrics[key], rel=2e-4), key
    assert torch.allclose(our_weights, weights, atol=1e-5)
    assert ours.state.global_step == theirs.state.global_step == STEPS


def test_every_name_of_transformers_is_there_or_refused():
    """A new release may bring names that the page does not have."""
    names = [name for name in vars(transformers.Trainer) if not name.startswith("__")]
    unknown = [n for n in names if n not in absent_names() and not hasattr(minift.Trainer, n)]
    assert not unknown


def test_the_epoch_of_a_short_last_group_is_that_of_transformers(tmp_path):
    """22 rows are six micro-batches, four to an update: the epoch ends with an update of two."""
    settings = {"gradient_accumulation_steps": 4}
    ours = run(minift, None, "output", tmp_path, **settings)[1]["epoch"]
    theirs = run(transformers, None, "output", tmp_path, **settings)[1]["epoch"]
    assert ours == pytest.approx(theirs, abs=1e-4)
