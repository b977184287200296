"""A run with checkpoints, as a process for `test_resume_faults.py` to disturb.

    python resume_child.py MODEL FOLDER '{"resume_from_checkpoint": true, ...}'

MODEL is a folder that `make` made, FOLDER the output_dir; the rest are settings other than those
below, and what is done to the process: "slow" (seconds that steps, evaluations and syncs to the
disk take longer), "limit" ([step, bytes]: from that step on no file may be longer), "no_check" (the
disk looks large), "wait_at" (a step in whose middle it waits for the file `FOLDER.go`).

The file `FOLDER.phase` says at any moment what the process does, as PHASE STEP; `FOLDER.result`
what came of it.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tiny import load, make_model, make_rows

from minift import AutoTokenizer, Dataset, Trainer, TrainingArguments, files, hookimpl
from minift.training import checkpoint, evaluation
from minift.training.run import Run

SETTINGS = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 4e-3,
    "warmup_steps": 3,
    "train_sampling_strategy": "group_by_length",
    "logging_steps": 4,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_steps": 4,
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "disable_tqdm": True,
    "device": "cpu",
}
ROWS, STEPS = 46, 18  # six steps an epoch, the last of them of fewer rows


def make(folder: Path) -> Path:
    """A tiny model with dropout."""
    return make_model(folder, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)


def dataset(tokenizer, n: int, seed: int) -> Dataset:
    rows = make_rows(n, seed)
    encoded = tokenizer(rows["sentence1"], rows["sentence2"], truncation=True)
    return Dataset.from_dict({**encoded, "labels": rows["label"]})


def trainer(model: Path, folder: Path, rows: int = ROWS, callbacks=(), **settings) -> Trainer:
    tokenizer = AutoTokenizer.from_pretrained(model)
    return Trainer(
        load(model, seed=1),
        TrainingArguments(str(folder), **{**SETTINGS, **settings}),
        train_dataset=dataset(tokenizer, rows, 0),
        eval_dataset=dataset(tokenizer, 20, 0),  # seen in training: it improves again and again
        tokenizer=tokenizer,
        compute_metrics="accuracy",
        callbacks=callbacks,
    )


def result(one: Trainer) -> dict:
    """What must be equal however often the run was disturbed."""
    digest = hashlib.sha256()
    for name, tensor in one.model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    moments = hashlib.sha256()
    for p in one.model.parameters():
        for key, value in sorted(one.run.optimizer.state[p].items()):
            moments.update(key.encode() + torch.as_tensor(value).numpy().tobytes())
    timed = ("runtime", "per_second")
    history = [
        {k: v for k, v in record.items() if not k.endswith(timed)}
        for record in one.state.log_history
    ]
    return {
        "weights": digest.hexdigest(),
        "optimizer": moments.hexdigest(),
        "history": history,
        "best": [one.state.best_step, one.state.best_metric],
    }


# ----------------------------------------------------------------------------- what disturbs a run


class Disturbance:
    """Says what the run does, makes each part of it take longer, and spoils the disk."""

    def __init__(self, folder: Path, slow: float, limit: list[int] | None, wait_at: int | None):
        self.file = os.open(f"{folder}.phase", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.folder, self.slow, self.limit, self.wait_at = folder, slow, limit, wait_at
        self.step = 0
        self.say("load")

    def say(self, phase: str) -> None:
        os.pwrite(self.file, f"{phase:8} {self.step:4}".encode(), 0)  # one write: never half of it

    @contextlib.contextmanager
    def phase(self, name: str):
        self.say(name)
        yield
        self.say("train")

    def wrap(self, function, name: str, pause: bool = False):
        def wrapped(run, *args, **kwargs):
            with self.phase(name):
                if pause:
                    time.sleep(4 * self.slow)
                return function(run, *args, **kwargs)

        return wrapped

    def wait(self, function):
        def waiting(run, *args, **kwargs):
            here = run.model.training and run.state.global_step + 1 == self.wait_at
            while here and not Path(f"{self.folder}.go").exists():
                self.say("wait")
                time.sleep(0.005)
            return function(run, *args, **kwargs)

        return waiting

    def install(self) -> None:
        checkpoint.save = self.wrap(checkpoint.save, "save")
        checkpoint.save_best = self.wrap(checkpoint.save_best, "save")
        Run.compute_loss = self.wait(Run.compute_loss)
        evaluation.evaluate = self.wrap(evaluation.evaluate, "evaluate", pause=True)
        sync = os.fsync

        def slowly(descriptor: int) -> None:
            time.sleep(self.slow / 3)
            sync(descriptor)

        os.fsync = slowly

    @hookimpl
    def minift_on_train_begin(self, run) -> None:
        self.step = run.state.global_step
        self.say("train")

    @hookimpl
    def minift_on_step_end(self, run) -> None:
        self.step = run.state.global_step
        self.say("train")
        time.sleep(self.slow)
        if self.limit and self.step >= self.limit[0]:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit[1], self.limit[1]))


def disturbed(
    model: str,
    folder: str,
    slow: float = 0,
    limit: list[int] | None = None,
    no_check: bool = False,
    wait_at: int | None = None,
    **settings,
) -> None:
    """The whole run, in a process of its own."""
    path = Path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        os.setsid()  # a group of its own, for signals to the whole of it
    errors = os.open(f"{folder}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    torch.set_num_threads(1)
    disturbance = Disturbance(path, slow, limit, wait_at)
    disturbance.install()
    if no_check:
        files.check_space = lambda *_: None
    one = trainer(Path(model), path, callbacks=[disturbance], **settings)
    one.train()
    Path(f"{folder}.result").write_text(json.dumps(result(one)))


if __name__ == "__main__":
    disturbed(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
