"""`Run`: everything a loop holds, and the run folder.

output_dir/
  run.json        configuration, versions, device, precision and why, data, seeds, how it ended
  metrics.jsonl   one line a log record
  checkpoint-STEP/  what training goes on from; see checkpoint.py
  best-STEP/      the best model so far, with load_best_model_at_end
  config.json, model.safetensors, tokenizer files: the model, when it was saved
"""

import json
import math
import os
import platform
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minift.data.dataset import Dataset
from minift.device import Device
from minift.errors import ConfigError, TrainingError
from minift.files import write_text
from minift.models.unpadding import add_unpadding
from minift.plugins import Manager, observe
from minift.training.arguments import TrainingArguments
from minift.training.batches import load_batches

if TYPE_CHECKING:
    import torch

LIBRARIES = ("minift", "torch", "numpy", "pyarrow", "tokenizers", "safetensors", "pluggy")


@dataclass
class TrainerState:
    """Where a run is, in plain numbers.

    Attributes:
        global_step: optimizer updates done.
        epoch: passes over the training rows done, with a fraction.
        max_steps: updates in all.
        log_history: every record that was logged.
        scores: `metric_for_best_model` at each evaluation of the loop.
        best_metric: the best value so far of `metric_for_best_model`.
        best_step: the step it was seen at.
        best_model_checkpoint: the folder of the model it was measured on, if that is kept.
        stop_reason: why the run ended before max_steps, or None.
    """

    global_step: int = 0
    epoch: float = 0.0
    max_steps: int = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_metric: float | None = None
    best_step: int | None = None
    best_model_checkpoint: str | None = None
    stop_reason: str | None = None


@dataclass
class Run:
    """One training run. Observers read it; only the loop and the Trainer change it."""

    args: TrainingArguments
    model: Any
    device: Device
    precision: str
    precision_reason: str
    collate: Callable[[Any], dict[str, Any]]
    manager: Manager
    train_dataset: Dataset | None = None
    eval_dataset: Dataset | None = None
    compute_metrics: Callable[[Any], dict[str, float]] | None = None
    forward_args: set[str] | None = None  # the names that model.forward takes; None: any
    loss: "Callable[[Any, dict[str, Any]], tuple[torch.Tensor, torch.Tensor]] | None" = None
    optimizer: Any = None
    scheduler: Any = None
    state: TrainerState = field(default_factory=TrainerState)
    started: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)  # how rows became inputs, for run.json
    scores: dict[str, Any] = field(default_factory=dict)  # of the model on eval_dataset, likewise
    status: str = ""
    processing_class: Any = None  # the tokenizer, saved with the model
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])  # resuming keeps it
    window: Any = None  # the loop's sums since the last log record, and its latch
    digests: dict[str, str] = field(default_factory=dict)  # of the rows of "train" and "eval"
    terminated: int = 0  # the signal that asked the process to end
    batch_splits: int = 1  # that a batch is computed in, because the whole did not fit into memory

    @property
    def folder(self) -> Path:
        return Path(self.args.output_dir or ".")

    @property
    def writes(self) -> bool:
        """Whether this process writes anything: one of all does, and none without output_dir."""
        return self.device.rank == 0 and self.args.output_dir is not None

    @property
    def rows_at_once(self) -> int:
        """Rows of a micro-batch in all processes together."""
        return self.args.per_device_train_batch_size * self.device.world_size

    def halve_batches(self, parts: Sequence[np.ndarray], error: Exception) -> None:
        """Compute each batch in twice as many parts from here on: same rows, same sums.

        Raises:
            TrainingError: not even a single row fits into the device's memory.
        """
        if max(map(len, parts)) == 1:
            raise TrainingError(
                "a batch of one row does not fit into the memory of the device",
                got=str(error).partition("\n")[0],
                do="tokenize with a smaller max_length, or take a smaller model",
            ) from error
        self.batch_splits *= 2
        self.log_message(
            f"out of memory: each batch is computed in {self.batch_splits} parts from here on"
        )

    def log_message(self, text: str) -> None:
        """A line for the person who watches; stdout is for results."""
        if self.device.rank == 0:
            print(text, file=sys.stderr)

    def call_observers(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook, in one process of all."""
        if self.device.rank > 0:
            return
        observe(self.manager, hook, self.log_message, run=self, **arguments)

    def batches(
        self, dataset: Dataset, plan: Sequence[np.ndarray], size: int, first: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Collated batches of the rows that the plan names, on the device.

        Where the real tokens are is worked out here, while the mask is still in host memory.

        Args:
            dataset: whose rows.
            plan: the rows of each batch of this process.
            size: rows of a full batch.
            first: the number of the plan's first batch; those of all processes come in turn.
        """
        workers, ranks = self.args.dataloader_num_workers, self.device.world_size
        numbers = range(first * ranks + self.device.rank, (first + len(plan)) * ranks, ranks)
        stream = load_batches(dataset, plan, self.collate, workers, self.args.seed, numbers)
        weighted = self.loss is None and "example_mask" in (self.forward_args or ())
        rows = math.ceil(size / self.batch_splits) if weighted else 0
        return self.device.batches(map(self.with_unpadding, stream), rows)

    def with_unpadding(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its `Unpadding`, for a model that takes one."""
        if "unpadding" in (self.forward_args or ()) and "attention_mask" in batch:
            batch = add_unpadding(batch, self.device, self.precision)
        return batch

    def forward(self, batch: dict[str, Any]) -> Any:
        """The model's outputs; it is given only what it takes."""
        taken = (
            batch
            if self.forward_args is None
            else {k: v for k, v in batch.items() if k in self.forward_args}
        )
        return self.model(**taken)

    def log(self, record: dict[str, Any]) -> None:
        """Add a record to the history, to metrics.jsonl, and tell the observers."""
        record = {name: plain(value) for name, value in record.items()}
        record = {**record, "epoch": round(self.state.epoch, 4), "step": self.state.global_step}
        self.state.log_history.append(record)
        if self.writes and self.folder.is_dir():
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        self.call_observers("minift_on_log", record=record)

    def start(self) -> None:
        """Make the run folder; an earlier run's records in it give way, a resumed run's stay."""
        if self.writes:
            records = "".join(json.dumps(record) + "\n" for record in self.state.log_history)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self.folder / "metrics.jsonl", records)
            except OSError as error:
                raise ConfigError(
                    f"the run folder {self.folder} cannot be written",
                    got=error,
                    do="choose another",
                ) from None
        self.started = time.time()
        self.write_status("running")
        self.call_observers("minift_on_train_begin")

    def end(self, error: BaseException | None = None) -> None:
        """Record how the run ended, and tell the observers."""
        self.write_status("finished" if error is None else status_of(error), error)
        if error is None:
            self.call_observers("minift_on_train_end")
        else:
            self.call_observers("minift_on_exception", exception=error)

    def write_status(self, status: str, error: BaseException | None = None) -> None:
        self.status = status
        if self.writes:
            text = json.dumps({**self.describe(), "status": status, **ended(error)}, indent=2)
            try:
                write_text(self.folder / "run.json", text)
            except OSError:
                if error is None:  # else the error that ends the run matters more: a full disk
                    raise

    def describe(self) -> dict[str, Any]:
        """What somebody needs to know to repeat the run."""
        splits = {"train": self.train_dataset, "eval": self.eval_dataset}
        report = getattr(self.model, "load_report", None)
        state = {k: v for k, v in asdict(self.state).items() if k != "log_history"}
        return {
            "run": self.id,
            "arguments": self.args.to_dict(),
            "device": self.device.description,
            "precision": self.precision,
            "precision_reason": self.precision_reason,
            "model": {
                "class": type(self.model).__name__,
                "source": report.source if report else None,
                "revision": report.revision if report else "",
                "parameters": sum(p.numel() for p in self.model.parameters()),
            },
            "data": {name: describe_data(ds) for name, ds in splits.items() if ds is not None},
            "inputs": self.inputs,
            "scores": self.scores if self.scores.get("step") == self.state.global_step else {},
            "seed": self.args.seed,
            "versions": versions(),
            "command": [without_token(word) for word in sys.argv],
            "state": state,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 3),
        }


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Which rows, and where they come from."""
    said: dict[str, Any] = {"rows": len(dataset), "columns": dataset.column_names}
    return {**said, "fingerprint": dataset.fingerprint, **dataset.origin}


def without_token(word: str) -> str:
    """A word of the command line, but for the Hub's tokens: others read run.json."""
    own = os.environ.get("HF_TOKEN")
    word = word.replace(own, "TOKEN") if own else word
    return re.sub(r"\b(hf|api_org)_[A-Za-z0-9]{30,}", "TOKEN", word)


def plain(value: Any) -> Any:
    """A number of numpy's or torch's as Python's, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else value


def status_of(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def ended(error: BaseException | None) -> dict[str, Any]:
    return {} if error is None else {"error": f"{type(error).__name__}: {error}"}


def versions() -> dict[str, str]:
    """Python and the libraries that numbers can depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
