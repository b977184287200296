"""Checkpoints: a run that goes on from any of them ends as the one that was never interrupted.

What happens when processes die in the middle is in tests/faults/test_resume_faults.py.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import make_model, make_rows, write_csv

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Dataset,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    files,
    hookimpl,
    load_dataset,
)
from minift.errors import ConfigError, DataError, MissingFileError, TrainingError
from minift.training import checkpoint, serialization

SETTINGS = {
    "learning_rate": 1e-3,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 3,
    "logging_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 1,
    "save_total_limit": None,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


def trainer(folder, out, n=50, model=None, optimizers=(None, None), callbacks=(), **settings):
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def rows(n, seed):
        data = Dataset.from_dict(make_rows(n, seed))
        return data.map(lambda b: tokenizer(b["sentence1"], b["sentence2"]), batched=True)

    return Trainer(
        model or AutoModelForSequenceClassification.from_pretrained(folder, seed=3),
        TrainingArguments(None if out is None else str(out), **{**SETTINGS, **settings}),
        train_dataset=rows(n, 0),
        eval_dataset=rows(20, 1),
        processing_class=tokenizer,
        compute_metrics=["accuracy"],
        callbacks=callbacks,
        optimizers=optimizers,
    )


def outcome(trained):
    """Everything that must not depend on an interruption."""
    timeless = [
        {k: v for k, v in record.items() if not k.endswith(("runtime", "per_second"))}
        for record in trained.state.log_history
    ]
    return {
        "weights": {n: p.detach().clone() for n, p in trained.model.state_dict().items()},
        "moments": {
            f"{name} {key}": value.clone()
            for name, p in trained.model.named_parameters()
            for key, value in trained.run.optimizer.state.get(p, {}).items()
        },
        "log": timeless,
        "best": (trained.state.best_metric, trained.state.best_step),
        "stop": (trained.state.global_step, trained.state.stop_reason),
    }


def assert_same(a, b):
    assert a["log"] == b["log"] and a["best"] == b["best"] and a["stop"] == b["stop"]
    for kind in ("weights", "moments"):
        assert a[kind].keys() == b[kind].keys()
        assert all(torch.equal(value, b[kind][name]) for name, value in a[kind].items())


def checkpoints(out):
    return [p.name for p in checkpoint.list_checkpoints(out)]


# ------------------------------------------------------------------------------------ exact resume

VARIANTS = {
    "random order": {},
    "like lengths": {"train_sampling_strategy": "group_by_length"},  # the peer is 2.2e-3 off there
    "in order": {"train_sampling_strategy": "sequential"},
    "no accumulation, drop_last": {"gradient_accumulation_steps": 1, "dataloader_drop_last": True},
    "fp16, with its loss scale": {"precision": "fp16"},
    "bf16": {"precision": "bf16"},
    "smoothed, decayed, warmed up": {
        "label_smoothing_factor": 0.1,
        "weight_decay": 0.1,
        "warmup_steps": 0.2,
        "lr_scheduler_type": "polynomial",
        "lr_scheduler_kwargs": {"power": 2.0},
    },
    "the best at the end": {"load_best_model_at_end": True},
}


# The first is part of every `make test`, the others of `make test-all`.
QUICK = ("random order",)
MARKED = [pytest.param(v, marks=() if v in QUICK else pytest.mark.slow) for v in VARIANTS]


@pytest.mark.parametrize("variant", MARKED)
def test_resuming_at_every_step_is_exact_to_the_bit(folder, tmp_path, variant):
    """transformers#11323, #12942, accelerate#2016: order, generators or logged losses differed."""
    settings = VARIANTS[variant]
    whole = trainer(folder, tmp_path / "whole", **settings)
    whole.train()
    expected = outcome(whole)
    steps = whole.state.global_step
    for step in range(1, steps + 1):
        resumed = trainer(folder, tmp_path / "resumed", **settings)
        resumed.train(resume_from_checkpoint=tmp_path / "whole" / f"checkpoint-{step}")
        assert_same(expected, outcome(resumed))
    records = (tmp_path / "resumed" / "metrics.jsonl").read_text().splitlines()
    assert len(records) == len(whole.state.log_history)  # each once, as in the uninterrupted run


@pytest.mark.slow
@pytest.mark.parametrize("record", [None, "", "{", "[]"], ids=["whole", "empty", "half", "list"])
def test_true_goes_on_from_the_newest(folder, tmp_path, record):
    """Also where run.json, which says whose folder it is, has been damaged."""
    whole = trainer(folder, tmp_path / "run")
    whole.train()
    if record is not None:
        (tmp_path / "run" / "run.json").write_text(record)
    for name in ("checkpoint-12", "checkpoint-11", "checkpoint-10"):
        shutil.rmtree(tmp_path / "run" / name)
    resumed = trainer(folder, tmp_path / "run", resume_from_checkpoint="true")
    taken = []
    resumed.run.log_message = taken.append
    resumed.train()
    assert f"going on from {tmp_path / 'run' / 'checkpoint-9'}" in taken
    assert_same(outcome(whole), outcome(resumed))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_saving_changes_nothing(folder, tmp_path):
    plain = trainer(folder, None, save_strategy="no")
    plain.train()
    saving = trainer(folder, tmp_path / "run", save_steps=1)
    saving.train()
    assert_same(outcome(plain), outcome(saving))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_anybodys_optimizer_and_schedule_resume(folder, tmp_path, kind):
    def own():
        model = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
        optimizer = kind(model.parameters(), lr=1e-3)
        return model, (optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5))

    model, optimizers = own()
    whole = trainer(folder, tmp_path / "a", model=model, optimizers=optimizers)
    whole.train()
    model, optimizers = own()
    resumed = trainer(folder, tmp_path / "b", model=model, optimizers=optimizers)
    resumed.train(resume_from_checkpoint=tmp_path / "a" / "checkpoint-7")
    assert_same(outcome(whole), outcome(resumed))


class Stairs:
    """A factor that LambdaLR saves by its attributes: a dict with numbers for keys."""

    def __init__(self):
        self.steps = {0: 1.0, 4: 0.5, 8: 0.1}

    def __call__(self, step):
        return self.steps[max(k for k in self.steps if k <= step)]


SCHEDULES = torch.optim.lr_scheduler
BUILD = {
    "milestones": lambda o: SCHEDULES.MultiStepLR(o, [6, 9], 0.1),
    "one after another": lambda o: SCHEDULES.SequentialLR(
        o, [SCHEDULES.LinearLR(o, 0.1, 1.0, 3), SCHEDULES.MultiStepLR(o, [5], 0.1)], [3]
    ),
    "an object's dict": lambda o: SCHEDULES.LambdaLR(o, Stairs()),
    "one cycle": lambda o: SCHEDULES.OneCycleLR(o, 1e-2, 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILD)
def test_a_schedule_whose_state_json_alone_cannot_hold_resumes(folder, tmp_path, kind):
    """Keys that are numbers come back as texts from JSON, and the milestones are never met."""

    def own():
        model = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, (optimizer, BUILD[kind](optimizer))

    model, optimizers = own()
    whole = trainer(folder, tmp_path / "a", model=model, optimizers=optimizers)
    whole.train()
    for step in (2, 5, 8):
        model, optimizers = own()
        resumed = trainer(folder, tmp_path / "b", model=model, optimizers=optimizers)
        resumed.train(resume_from_checkpoint=tmp_path / "a" / f"checkpoint-{step}")
        assert_same(outcome(whole), outcome(resumed))


def test_what_cannot_be_saved_is_said_before_the_first_step(folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3))
    trained = trainer(folder, tmp_path / "run", model=model, optimizers=(optimizer, None))
    with pytest.raises(ConfigError, match="cannot be saved in a checkpoint"):
        trained.train()
    assert trained.state.global_step == 0 and not (tmp_path / "run").exists()


def test_a_schedule_that_waits_for_a_metric_is_refused(folder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    plateau = SCHEDULES.ReduceLROnPlateau(optimizer)
    with pytest.raises(ConfigError, match="depend on the step"):
        trainer(folder, None, model=model, optimizers=(optimizer, plateau)).train()


class Careless:
    """A collator that masks tokens at random, from all three global generators."""

    def __init__(self, tokenizer):
        self.pad = DataCollatorWithPadding(tokenizer)
        self.drawn = []

    def __call__(self, rows):
        batch = self.pad(rows)
        draws = (random.random(), np.random.rand(), float(torch.rand(())))
        self.drawn.append(draws)
        shape = batch["input_ids"].shape
        mask = torch.rand(shape) < sum(draws) / 10
        batch["input_ids"] = batch["input_ids"].masked_fill(mask, 1)
        return batch


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_collator_that_draws_is_resumed_too(folder, tmp_path, workers):
    """Workers or not, and from wherever it goes on: batch k of a run is always the same."""

    def train(name, workers=0, **options):
        trained = trainer(folder, tmp_path / name, dataloader_num_workers=workers)
        trained.data_collator = Careless(trained.processing_class)
        trained.train(**options)
        return trained

    before = random.getstate(), np.random.get_state()[1].tolist()
    whole = train("whole")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    draws = whole.data_collator.drawn
    assert len(set(draws)) >= 21  # of 7 batches an epoch none repeats in the next
    resumed = train("b", workers, resume_from_checkpoint=tmp_path / "whole" / "checkpoint-5")
    assert_same(outcome(whole), outcome(resumed))


class Tied(torch.nn.Module):
    """A stranger's model whose one matrix has two names, with a buffer that is saved."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(100, 4)
        self.out = torch.nn.Linear(4, 100, bias=False)
        self.out.weight = self.embed.weight
        self.head = torch.nn.Linear(100, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, input_ids, attention_mask, labels=None):
        self.seen += 1
        logits = self.head(self.out(self.embed(input_ids % 100).mean(1)))
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        return type("Out", (), {"logits": logits, "loss_sum": loss, "num_items": len(labels)})


def test_a_strangers_model_with_tied_weights_resumes(folder, tmp_path):
    whole = trainer(folder, tmp_path / "a", model=Tied())
    whole.train()
    resumed = trainer(folder, tmp_path / "b", model=Tied())
    resumed.train(resume_from_checkpoint=tmp_path / "a" / "checkpoint-5")
    assert_same(outcome(whole), outcome(resumed))
    assert resumed.model.out.weight is resumed.model.embed.weight


def test_frozen_parameters_stay_and_have_no_moments(folder, tmp_path):
    def frozen():
        model = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
        for name, p in model.named_parameters():
            p.requires_grad_(not name.startswith(("bert.embeddings", "bert.encoder.layer.0")))
        return model

    before = {n: p.clone() for n, p in frozen().named_parameters() if not p.requires_grad}
    whole = trainer(folder, tmp_path / "a", model=frozen())
    whole.train()
    after = dict(whole.model.named_parameters())
    assert before and all(torch.equal(p, after[name]) for name, p in before.items())
    saved = load_file(tmp_path / "a" / "checkpoint-3" / "optimizer.safetensors")
    assert not any(key.startswith("bert.embeddings") for key in saved)
    resumed = trainer(folder, tmp_path / "b", model=frozen())
    resumed.train(resume_from_checkpoint=tmp_path / "a" / "checkpoint-3")
    assert_same(outcome(whole), outcome(resumed))
    other = trainer(folder, tmp_path / "c")
    with pytest.raises(ConfigError, match="updates other parameters"):
        other.train(resume_from_checkpoint=tmp_path / "a" / "checkpoint-3")


def test_early_stopping_decides_as_the_uninterrupted_run(folder, tmp_path):
    """What it needs is in the history, which the checkpoint has."""
    settings = {"learning_rate": 0.0, "callbacks": [EarlyStoppingCallback(3)]}
    whole = trainer(folder, tmp_path / "a", **settings)
    whole.train()
    assert whole.state.stop_reason and whole.state.global_step == 8
    assert checkpoints(tmp_path / "a")[-1] == "checkpoint-8"
    for step in (3, 7, 8):
        resumed = trainer(folder, tmp_path / "b", **settings)
        resumed.train(resume_from_checkpoint=tmp_path / "a" / f"checkpoint-{step}")
        assert_same(outcome(whole), outcome(resumed))


# ------------------------------------------------------------------------------ what is in a folder


def test_a_checkpoint_is_a_model_folder_without_pickle(folder, tmp_path):
    trained = trainer(folder, tmp_path / "run", save_steps=6)
    trained.train()
    saved = tmp_path / "run" / "checkpoint-12"
    assert {p.suffix for p in saved.iterdir()} <= {".json", ".safetensors", ".txt"}
    model = AutoModelForSequenceClassification.from_pretrained(saved)
    assert all(map(torch.equal, model.state_dict().values(), trained.model.state_dict().values()))
    assert AutoTokenizer.from_pretrained(saved)("a")["input_ids"]
    assert files.verify_folder(saved).meta["run"] == trained.run.id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"save_strategy": "no"}, []),
        ({"save_steps": 5}, ["5", "10", "12"]),
        ({"save_steps": 0.5}, ["6", "12"]),
        ({"save_strategy": "epoch"}, ["4", "8", "12"]),
        ({"save_steps": 2, "save_total_limit": 2}, ["10", "12"]),
        ({"save_steps": 2, "save_total_limit": 1}, ["12"]),
        ({"output_dir": None}, []),
    ],
)
def test_what_is_saved_when(folder, tmp_path, settings, expected):
    settings = dict(settings)
    out = settings.pop("output_dir", tmp_path / "run")
    trainer(folder, out, **settings).train()
    assert checkpoints(tmp_path / "run") == [f"checkpoint-{step}" for step in expected]


def test_without_output_dir_nothing_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = trainer(folder, None)
    trained.train()
    assert list(tmp_path.iterdir()) == [] and trained.state.log_history


def test_the_best_model_is_kept_whatever_is_saved_when(folder, tmp_path):
    """transformers#12685, #12786: save and evaluation intervals had to be multiples."""
    scores = iter([0.1, 0.9, 0.3, 0.9, 0.2, 0.1])
    kept = {}

    class Watch:
        @hookimpl
        def minift_on_evaluate(self, run, result):
            weights = {n: p.clone() for n, p in run.model.state_dict().items()}
            kept[run.state.global_step] = weights

    trained = trainer(
        folder,
        tmp_path / "run",
        save_steps=5,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        callbacks=[Watch()],
    )
    trained.compute_metrics = lambda prediction: {"score": next(scores)}
    trained.train()
    assert (trained.state.best_step, trained.state.best_metric) == (4, 0.9)  # the first of a tie
    best = {n: p for n, p in trained.model.state_dict().items()}
    assert all(torch.equal(value, kept[4][name]) for name, value in best.items())
    assert any(not torch.equal(value, kept[12][name]) for name, value in best.items())
    assert trained.state.best_model_checkpoint == str(tmp_path / "run" / "best-4")
    assert [p.name for p in (tmp_path / "run").glob("best-*")] == ["best-4"]
    AutoModelForSequenceClassification.from_pretrained(trained.state.best_model_checkpoint)


def test_nan_is_never_the_best_and_an_error_is_better_when_less(folder, tmp_path):
    scores = iter([0.5, float("nan"), 0.2, 0.7, 0.9, 0.4])
    trained = trainer(folder, tmp_path / "run", metric_for_best_model="mse", save_strategy="best")
    trained.compute_metrics = lambda prediction: {"mse": next(scores)}
    trained.train()
    assert (trained.state.best_step, trained.state.best_metric) == (6, 0.2)
    assert checkpoints(tmp_path / "run") == ["checkpoint-2", "checkpoint-6"]  # when it improved


# ----------------------------------------------------------------------------- what is not trusted


def run_of_three(folder, out):
    whole = trainer(folder, out, save_steps=4)
    whole.train()
    assert checkpoints(out) == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    return whole


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_a_damaged_checkpoint_is_skipped_with_a_message(folder, tmp_path, damage, name):
    """The peer takes the newest and crashes, or goes on without the optimizer and says nothing."""
    whole = run_of_three(folder, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint-12" / name)
    resumed = trainer(folder, tmp_path / "run", save_steps=4)
    said = []
    resumed.run.log_message = said.append
    resumed.train(resume_from_checkpoint=True)
    skipped = [line for line in said if line.startswith("skipped")]
    assert len(skipped) == 1 and "checkpoint-12" in skipped[0]
    assert f"going on from {tmp_path / 'run' / 'checkpoint-8'}" in said
    assert_same(outcome(whole), outcome(resumed))
    files.verify_folder(tmp_path / "run" / "checkpoint-12")  # written again


def test_no_valid_checkpoint_is_an_error_and_deletes_nothing(folder, tmp_path):
    run_of_three(folder, tmp_path / "run")
    for name in checkpoints(tmp_path / "run"):
        flip(tmp_path / "run" / name / "model.safetensors")
    with pytest.raises(MissingFileError, match="no valid checkpoint"):
        trainer(folder, tmp_path / "run").train(resume_from_checkpoint=True)
    assert len(checkpoints(tmp_path / "run")) == 3
    with pytest.raises(DataError, match=r"model\.safetensors is damaged"):
        damaged = tmp_path / "run" / "checkpoint-8"
        trainer(folder, tmp_path / "run").train(resume_from_checkpoint=damaged)
    with pytest.raises(MissingFileError, match="no valid checkpoint"):
        trainer(folder, tmp_path / "empty").train(resume_from_checkpoint=True)


def test_a_manifest_cannot_name_files_elsewhere(folder, tmp_path):
    run_of_three(folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-4" / "manifest.json"
    said = json.loads(path.read_text())
    said["files"]["../run.json"] = said["files"]["state.json"]
    path.write_text(json.dumps(said))
    with pytest.raises(DataError, match="damaged"):
        files.verify_folder(path.parent)


def test_a_checkpoint_of_another_version_is_skipped_by_that_name(folder, tmp_path):
    """Its manifest had no format then, and state.json other keys."""
    trained = run_of_three(folder, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint-12" / "manifest.json"
    manifest = json.loads(path.read_text())
    older = {"run": trained.run.id, "step": 12, "files": manifest["files"]}
    path.write_text(json.dumps(older))
    said = []
    found = checkpoint.newest_valid(tmp_path / "run", trained.run.id, said.append)
    assert found.name == "checkpoint-8"
    assert len(said) == 1 and "checkpoint-12 was written by another version of minift" in said[0]
    with pytest.raises(DataError, match="another version of minift"):
        trainer(folder, tmp_path / "run").train(resume_from_checkpoint=path.parent)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"learning_rate": 2e-3}, "learning_rate=0.002"),
        ({"seed": 1}, "seed=1"),
        ({"num_train_epochs": 4}, "num_train_epochs=4"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps=1"),
        ({"precision": "bf16"}, "precision='bf16'"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy='sequential'"),
        ({"weight_decay": 0.1}, "weight_decay=0.1"),
        ({"n": 51}, "train_dataset"),
    ],
)
def test_another_run_is_not_resumed(folder, tmp_path, changed, name):
    trainer(folder, tmp_path / "run", save_steps=6).train()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    other = trainer(folder, tmp_path / "run", save_steps=6, **changed)
    with pytest.raises(ConfigError, match="other settings") as caught:
        other.train(resume_from_checkpoint=True)
    assert name in str(caught.value)
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_another_model_optimizer_or_evaluation_is_not_resumed(folder, tmp_path):
    """Dropout of another rate, or another schedule, would go on without a word."""
    trainer(folder, tmp_path / "run", save_steps=6).train()

    def refused(name, change, optimizers=(None, None), model=None):
        other = trainer(folder, tmp_path / "run", model=model, optimizers=optimizers)
        change(other)
        with pytest.raises(ConfigError, match="other settings") as caught:
            other.train(resume_from_checkpoint=True)
        assert name in str(caught.value)

    refused("config", lambda t: setattr(t.model.config, "hidden_dropout_prob", 0.0))
    fewer = trainer(folder, None).run.eval_dataset.select(range(9))
    refused("eval_dataset", lambda t: setattr(t, "eval_dataset", fewer))
    model = AutoModelForSequenceClassification.from_pretrained(folder, seed=3)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-3)
    refused("optimizer", lambda t: None, (sgd, None), model)


def test_the_same_rows_from_elsewhere_are_the_same_rows(folder, tmp_path):
    """A machine that took the place of another has downloaded its files again."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def from_file(name):
        path = write_csv(tmp_path / name, make_rows(50))
        rows = load_dataset("csv", data_files=str(path), split="train")
        rows = rows.map(lambda b: tokenizer(b["sentence1"], b["sentence2"]), batched=True)
        built = trainer(folder, tmp_path / "run", save_steps=6)
        built.train_dataset = rows.select_columns(built.run.train_dataset.column_names)
        return built

    whole, resumed = from_file("there.csv"), from_file("here.csv")
    assert whole.run.train_dataset.fingerprint != resumed.run.train_dataset.fingerprint
    whole.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    resumed.train(resume_from_checkpoint=True)
    assert_same(outcome(whole), outcome(resumed))


@pytest.mark.parametrize(
    ("where", "message"),
    [("nowhere", "no such folder"), ("run", "a run folder, with checkpoint-6, checkpoint-12")],
)
def test_a_path_that_is_no_checkpoint(folder, tmp_path, where, message):
    trainer(folder, tmp_path / "run", save_steps=6).train()
    with pytest.raises(MissingFileError) as caught:
        trainer(folder, tmp_path / "run").train(resume_from_checkpoint=tmp_path / where)
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match="output_dir is None"):
        trainer(folder, None).train(resume_from_checkpoint=True)


class Signals:
    """Send signals to this process once a step is done."""

    def __init__(self, step, *numbers):
        self.step, self.numbers = step, numbers

    @hookimpl
    def minift_on_step_end(self, run):
        if run.state.global_step == self.step:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_an_interrupted_run_saves_and_says_how_it_goes_on(folder, tmp_path, capsys, number, error):
    """A notebook's stop, Ctrl-C, a scheduler: nothing that was computed is lost."""
    out = tmp_path / "run"
    stopped = trainer(folder, out, save_steps=5, callbacks=[Signals(7, number)])
    with pytest.raises(error):
        stopped.train()
    assert checkpoints(out) == ["checkpoint-5", "checkpoint-7"]
    said = capsys.readouterr().err
    assert "ending after this step, and saving it" in said
    assert "the run ended at step 7 of 12; it goes on from checkpoint-7 with\n" in said
    assert "trainer.train(resume_from_checkpoint=True)" in said
    stopped.train(resume_from_checkpoint=True)
    whole = trainer(folder, None)
    whole.train()
    assert_same(outcome(whole), outcome(stopped))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"save_steps": 5}, "one is written every 5 steps"),
        ({"save_strategy": "epoch"}, "one is written every 4 steps"),
        ({"save_strategy": "no"}, "one is written never (save_strategy)"),
        ({"save_strategy": "best"}, "one is written when the best metric improves"),
    ],
    ids=lambda value: str(value),
)
def test_a_run_that_ends_without_a_checkpoint_says_when_there_is_one(
    folder, tmp_path, capsys, settings, said
):
    """A second Ctrl-C ends at once."""
    stopped = trainer(
        folder, tmp_path / "run", callbacks=[Signals(1, signal.SIGINT, signal.SIGINT)], **settings
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert checkpoints(tmp_path / "run") == []
    assert f"the run ended at step 1 of 12, without a checkpoint: {said}" in capsys.readouterr().err


def test_what_an_ended_run_cannot_go_on_from(folder, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        trainer(folder, None, callbacks=[Signals(7, signal.SIGINT)]).train()
    assert "one is written never (output_dir is None)" in capsys.readouterr().err
    made = trainer(
        folder, tmp_path / "a", save_only_model=True, callbacks=[Signals(7, signal.SIGINT)]
    )
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert "checkpoint-7 holds its model alone" in capsys.readouterr().err


def test_about_ten_checkpoints_of_which_two_stay(folder, tmp_path, capsys):
    class Saved:
        steps = ()

        @hookimpl
        def minift_on_save(self, run, path):
            Saved.steps = (*Saved.steps, run.state.global_step)

    defaults = {
        name: getattr(TrainingArguments, name) for name in ("save_steps", "save_total_limit")
    }
    made = trainer(folder, tmp_path / "run", num_train_epochs=10, callbacks=[Saved()], **defaults)
    made.train()
    assert Saved.steps == tuple(range(4, 41, 4)) and len(Saved.steps) == 10
    assert checkpoints(tmp_path / "run") == ["checkpoint-36", "checkpoint-40"]
    size = serialization.checkpoint_bytes(made.model) / 1e6
    said = (
        f"checkpoints are written every 4 steps, {size:.0f} MB each; 2 are kept, {2 * size:.0f} MB"
    )
    assert said in capsys.readouterr().err


def test_the_same_trainer_goes_on_after_an_interruption(folder, tmp_path):
    """As in a notebook: stop the cell, and train again from what was saved."""

    class Interrupt:
        at = 7

        @hookimpl
        def minift_on_step_end(self, run):
            if run.state.global_step == self.at:
                Interrupt.at = None
                raise KeyboardInterrupt

    trained = trainer(folder, tmp_path / "run", callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        trained.train()
    trained.train(resume_from_checkpoint=True)
    whole = trainer(folder, None)
    whole.train()
    assert_same(outcome(whole), outcome(trained))
    with pytest.raises(ConfigError, match="trained already"):
        trained.train()


def test_what_does_not_change_the_weights_may_change(folder, tmp_path):
    whole = trainer(folder, tmp_path / "run", save_steps=6, eval_strategy="no")
    whole.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    settings = {"logging_steps": 1, "eval_steps": 1, "save_strategy": "epoch"}
    resumed = trainer(folder, tmp_path / "run", **settings, dataloader_num_workers=1)
    resumed.train(resume_from_checkpoint=True)
    for name, value in outcome(whole)["weights"].items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_the_precision_of_the_checkpoint_is_kept_unless_another_is_asked_for(folder, tmp_path):
    trainer(folder, tmp_path / "run", precision="bf16").train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    resumed = trainer(folder, tmp_path / "run", precision="auto")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.precision == "bf16" and resumed.args.bf16
    assert resumed.run.precision_reason == "as in the checkpoint"


def test_only_models_cannot_be_resumed(folder, tmp_path):
    trainer(folder, tmp_path / "run", save_only_model=True).train()
    assert not (tmp_path / "run" / "checkpoint-12" / "optimizer.safetensors").exists()
    with pytest.raises(MissingFileError):
        trainer(folder, tmp_path / "run").train(resume_from_checkpoint=True)


# ------------------------------------------------------------------------------ whose, how many


def test_rotation_and_resuming_leave_other_runs_alone(folder, tmp_path):
    """transformers#26961, #27138: by number or time of change, the wrong ones went."""
    trainer(folder, tmp_path / "run", save_steps=6).train()
    (tmp_path / "run" / "checkpoint-best").mkdir()
    (tmp_path / "run" / "checkpoint-99").mkdir()
    second = trainer(folder, tmp_path / "run", save_steps=5, save_total_limit=1, seed=7)
    said = []
    second.run.log_message = said.append
    second.train()
    assert any("a new run begins" in line and "checkpoint-6" in line for line in said)
    left = {p.name for p in (tmp_path / "run").glob("checkpoint-*")}
    assert left == {"checkpoint-6", "checkpoint-12", "checkpoint-99", "checkpoint-best"}
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")  # the second run's: the first's remains
    with pytest.raises(MissingFileError):
        trainer(folder, tmp_path / "run", seed=7).train(resume_from_checkpoint=True)


def test_a_folder_of_the_users_is_put_aside_and_not_deleted(folder, tmp_path):
    mine = tmp_path / "run" / "checkpoint-6"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("mine")
    trainer(folder, tmp_path / "run", save_steps=6, save_total_limit=1).train()
    (aside,) = (tmp_path / "run").glob("checkpoint-6.unknown-*")
    assert (aside / "thesis.txt").read_text() == "mine"


def test_rotation_prefers_what_the_run_goes_on_from(folder, tmp_path):
    """A later checkpoint, damaged, must not push out a valid one."""
    trainer(folder, tmp_path / "run", save_steps=4).train()
    for name in ("checkpoint-12", "checkpoint-8"):
        flip(tmp_path / "run" / name / "model.safetensors")
    resumed = trainer(folder, tmp_path / "run", save_steps=6, save_total_limit=2)

    class Look:
        found = None

        @hookimpl
        def minift_on_save(self, run, path):
            Look.found = Look.found or checkpoints(run.folder)

    resumed.run.manager.register(Look())
    resumed.train(resume_from_checkpoint=True)
    assert Look.found == ["checkpoint-4", "checkpoint-6"]


def test_a_kill_between_the_two_renames_is_put_right(folder, tmp_path):
    trained = trainer(folder, tmp_path / "run", save_steps=6)
    trained.train()
    saved = tmp_path / "run" / "checkpoint-12"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hidden = files.scratch_path(saved).name.replace(f".{os.getpid()}.", f".{dead.pid}.")
    os.rename(saved, saved.with_name(f"{hidden}-old"))
    saved.with_name(hidden).mkdir()
    resumed = trainer(folder, tmp_path / "run", save_steps=6)
    resumed.train(resume_from_checkpoint=True)
    assert_same(outcome(trained), outcome(resumed))
    assert not list((tmp_path / "run").glob(".*"))
    files.verify_folder(saved)


def test_metrics_of_numpys_and_torchs_types(folder, tmp_path):
    trained = trainer(folder, tmp_path / "run", metric_for_best_model="b")
    odd = {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": np.bool_(True), "d": np.arange(2)}
    trained.compute_metrics = lambda prediction: odd
    trained.train()
    record = next(r for r in trained.state.log_history if "eval_a" in r)
    assert (record["eval_a"], record["eval_b"], record["eval_c"]) == (0.5, 2.0, True)
    assert record["eval_d"] == [0, 1] and trained.state.best_metric == 2.0


def test_no_space_is_said_before_anything_is_written(folder, tmp_path, monkeypatch):
    trained = trainer(folder, tmp_path / "run", save_steps=4)
    usage = shutil.disk_usage(tmp_path)

    def scarce(path):
        full = (tmp_path / "run" / "checkpoint-4").exists()
        return usage._replace(free=1000 if full else usage.free)

    monkeypatch.setattr(shutil, "disk_usage", scarce)
    with pytest.raises(TrainingError, match="no space"):
        trained.train()
    assert [p.name for p in (tmp_path / "run").iterdir() if p.is_dir()] == ["checkpoint-4"]
    files.verify_folder(tmp_path / "run" / "checkpoint-4")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    resumed = trainer(folder, tmp_path / "run", save_steps=4)
    resumed.train(resume_from_checkpoint=True)
    whole = trainer(folder, None)
    whole.train()
    assert_same(outcome(whole), outcome(resumed))


def test_observers_are_told_of_complete_checkpoints(folder, tmp_path):
    told = []

    class Watch:
        @hookimpl
        def minift_on_save(self, run, path):
            told.append((run.state.global_step, files.verify_folder(path).meta["step"]))

    trainer(folder, tmp_path / "run", save_steps=5, callbacks=[Watch()]).train()
    assert told == [(5, 5), (10, 10), (12, 12)]


def test_the_history_survives_numbers_that_are_not_finite(folder, tmp_path):
    trained = trainer(folder, tmp_path / "run", save_steps=4)
    trained.compute_metrics = lambda prediction: {"odd": float("nan")}
    trained.train()
    shutil.rmtree(tmp_path / "run" / "checkpoint-12")
    resumed = trainer(folder, tmp_path / "run")
    resumed.compute_metrics = lambda prediction: {"odd": float("nan")}
    resumed.train(resume_from_checkpoint=True)
    odd = [r["eval_odd"] for r in resumed.state.log_history if "eval_odd" in r]
    assert len(odd) == 6 and np.isnan(odd).all()
