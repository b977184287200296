"""`Run`: what is trained and with what, as the loop and its observers see it."""

import functools
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minift.data.dataset import Dataset
from minift.device import Device
from minift.files import local_path
from minift.plugins import Manager, call_observers
from minift.training.arguments import TrainingArguments
from minift.training.losses import LossFunction, LossTracker, mean_loss, model_loss


@dataclass
class TrainerState:
    """Progress of a run, in plain numbers.

    Attributes:
        global_step: optimizer updates done.
        epoch: passes over the training rows done, with a fraction.
        max_steps: updates in all.
        log_history: every record that was logged.
        metric_history: `metric_for_best_model` at each evaluation of the loop.
        best_metric: the best value so far of `metric_for_best_model`.
        best_step: the step it was seen at.
        best_model_checkpoint: the folder of the model it was measured on, if that is kept.
        stop_reason: why the run ended before max_steps, or None.
    """

    global_step: int = 0
    epoch: float = 0.0
    max_steps: int = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    metric_history: list[float] = field(default_factory=list)
    best_metric: float | None = None
    best_step: int | None = None
    best_model_checkpoint: str | None = None
    stop_reason: str | None = None


@dataclass
class Run:
    """One training run. Observers read it; only the loop and the Trainer change it.

    Attributes:
        precision: what the model computes in, "fp32", "bf16" ...; precision_reason: why.
        collate: rows to a batch of tensors in host memory.
        manager: the plugins of this run, its callbacks among them.
        forward_args: the argument names of model.forward; None: it takes any.
        select_columns: checks a dataset, and selects the columns that the model takes.
        train_loader: what `get_train_dataloader` of the Trainer returned: the order of the rows.
        train_collate: the collator of the training rows.
        epochs: row numbers of the micro-batches of epoch 0, 1, ..., as far as they were asked for.
        epoch_rows, epoch_batches: how many rows and micro-batches an epoch has.
        loss: (outputs, batch) to (sum of losses, number of items).
        own_loss: the `compute_loss` of a subclass of Trainer, if it has one.
        save_model: writes beside each saved model what a subclass of Trainer adds to it.
        processing_class: the tokenizer, which is saved with the model.
        losses: sums since the last log record; built with the optimizer.
        batch_splits: into how many parts each batch is split, after running out of memory.
        data_digests: digests of the rows of "train" and "eval", for checkpoints.
        options: values of the flags that plugins add to `minift train` (minift_add_options).
        resume_command: what to type so that an interrupted run goes on.
        termination_signal: the number of the signal that asked this process to end, or 0.
        started: when training began, in seconds since 1970.
        id: tells runs in one folder apart; a resumed run keeps it.
    """

    args: TrainingArguments
    model: Any
    device: Device
    precision: str
    precision_reason: str
    collate: Callable[[Any], dict[str, Any]]
    manager: Manager
    select_columns: Callable[..., Any] = lambda dataset, *_: dataset
    train_dataset: Dataset | None = None
    train_collate: Callable[[Any], dict[str, Any]] | None = None
    train_loader: Any = None
    epochs: list[list[Any]] = field(default_factory=list)
    epoch_rows: int = 0
    epoch_batches: int = 0
    eval_dataset: Dataset | None = None
    compute_metrics: Callable[[Any], dict[str, float]] | None = None
    forward_args: set[str] | None = None
    loss: LossFunction = model_loss
    own_loss: Callable[..., Any] | None = None
    save_model: Callable[[Path], None] | None = None
    processing_class: Any = None
    optimizer: Any = None
    scheduler: Any = None
    losses: LossTracker = field(init=False)
    state: TrainerState = field(default_factory=TrainerState)
    batch_splits: int = 1
    data_digests: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    resume_command: str = "trainer.train(resume_from_checkpoint=True)"
    termination_signal: int = 0
    started: float = 0.0
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @functools.cached_property
    def folder(self) -> Path:
        """The run folder, absolute from its first use on: os.chdir splits no run in two."""
        return local_path(self.args.output_dir or ".").absolute()

    @property
    def writes(self) -> bool:
        """True in the one process that writes files, if there is an output_dir."""
        return self.device.rank == 0 and self.args.output_dir is not None

    @property
    def micro_batch_size(self) -> int:
        """Rows of a micro-batch in all processes together."""
        return self.args.per_device_train_batch_size * self.device.world_size

    def forward(self, batch: dict[str, Any]) -> Any:
        """Return the model's outputs; of the batch it gets only what its forward takes."""
        names = self.forward_args
        return self.model(**{k: v for k, v in batch.items() if names is None or k in names})

    def compute_loss(self, batch: dict[str, Any], return_outputs: bool = False) -> Any:
        """Return the sum of a batch's losses, of how many items it is the sum, and the outputs.

        Args:
            batch: a collated batch.
            return_outputs: the outputs are needed; else they may be None.
        """
        if self.own_loss is None:
            outputs = self.forward(batch)
            return *self.loss(outputs, batch), outputs
        loss_sum, count, outputs = mean_loss(self.own_loss, self.model, batch, return_outputs)
        if return_outputs and outputs is None:
            outputs = self.forward(batch)
        return loss_sum, count, outputs

    def log_message(self, text: str) -> None:
        """Print a line for the person who watches, to stderr: stdout is for results."""
        if self.device.rank == 0:
            print(text, file=sys.stderr)

    def call_observers(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook, in process 0 only."""
        if self.device.rank == 0:
            call_observers(self.manager, hook, self.log_message, run=self, **arguments)
