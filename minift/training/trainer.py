"""`Trainer`: checks its arguments, builds a `Run` from them, and calls the loop.

Whatever is wrong with the data, the labels or the settings is an error before the first step.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from minift.collate import DataCollatorWithPadding
from minift.data.dataset import Dataset
from minift.device import choose_device, choose_precision
from minift.errors import ArgumentError, ConfigError, PluginError
from minift.models.weights import unwrap
from minift.optim import AdamW, parameter_groups
from minift.plugins import default_manager, manager_for_run
from minift.schedule import get_scheduler
from minift.training import checkpoint, compatibility, evaluation, loop, losses, serialization
from minift.training.arguments import TrainingArguments
from minift.training.batches import epoch_plan, read_loader, steps_per_epoch
from minift.training.checks import forward_arguments, select_model_columns
from minift.training.recorder import Recorder
from minift.training.run import Run, TrainerState
from minift.training.trackers import add_trackers

# Attributes that count as if they had been passed to the constructor, whenever they are set; and
# those of which this is so until a run begins. Of the arguments, what is read once.
SETTABLE = ("data_collator", "eval_dataset", "processing_class", "compute_metrics")
READ_AT_START = ("model", "train_dataset", "optimizer", "lr_scheduler")
READ_ONCE = ("device", "use_cpu", "precision", "bf16", "fp16", "tf32")


class TrainOutput(NamedTuple):
    """The result of `train()`: updates done, mean loss per item, and the logged summary."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer:
    """Fine-tune a model on a dataset.

    A subclass may override `compute_loss`, `create_optimizer`, `create_scheduler`,
    `get_train_dataloader`, `get_eval_dataloader`, `get_test_dataloader`, `_get_train_sampler`,
    `evaluate`, `log` and `save_model`, as in transformers; other methods of its Trainer are refused
    when the object is made. An attribute that is set later counts as if it had been passed here.

    Args:
        model: a model of minift's, or any nn.Module that returns logits and, when it gets labels,
            a loss, or `loss_sum` and `num_items`; see `read_outputs` for the forms.
        args: the settings; see `TrainingArguments`.
        data_collator: rows to a batch; with a tokenizer, padding is the default.
        train_dataset: tokenized rows with a label column.
        eval_dataset: the same, for `evaluate`.
        processing_class: the tokenizer (`tokenizer=` is the older spelling); saved with the model.
        compute_metrics: a function of an `EvalPrediction`, or names of metrics.
        callbacks: plugins for this run.
        optimizers: (optimizer, schedule) instead of AdamW and the schedule in `args`.
        loss: function(outputs, batch) -> (sum of losses, number of items).
    """

    def __init__(
        self, model: Any, args: TrainingArguments | None = None,
        data_collator: Callable[[Any], dict[str, Any]] | None = None,
        train_dataset: Dataset | None = None, eval_dataset: Dataset | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[Any], dict[str, float]] | str | Sequence[str] | None = None,
        callbacks: Sequence[object] | None = (), optimizers: tuple[Any, Any] | None = (None, None),
        loss: losses.LossFunction | None = None, tokenizer: Any = None,
    ) -> None:  # fmt: skip
        compatibility.check_methods(type(self), Trainer, (*SETTABLE, *READ_AT_START))
        self.model, self.args = model, args or TrainingArguments()
        self.processing_class = processing_class or tokenizer
        if data_collator is None and self.processing_class is None:
            raise ArgumentError("Trainer needs processing_class=tokenizer, or a data_collator")
        self.data_collator = data_collator or DataCollatorWithPadding(self.processing_class)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.compute_metrics, self._loss = compute_metrics, loss
        manager = manager_for_run(default_manager(), callbacks or ())
        add_trackers(self.args.report_to, manager)
        device = choose_device("cpu" if self.args.use_cpu else self.args.device, manager)
        self._requested_precision = self.args.requested_precision()
        precision, reason = choose_precision(self._requested_precision, device)
        self.args.set_precision(precision)
        self._read_once = {name: getattr(self.args, name) for name in READ_ONCE}
        chosen: tuple[Any, Any] = optimizers or (None, None)
        self.optimizer, self.lr_scheduler = chosen
        ready, collate = device.prepare(model), self.data_collator
        self.run = Run(self.args, ready, device, precision, reason, collate, manager)
        self._read_attributes()
        self.recorder = Recorder(self.run)

    def _read_attributes(self) -> None:
        """Check the attributes that a run is made of, and hand them to it."""
        run, loss, smoothing = self.run, self._loss, self.args.label_smoothing_factor
        plain = unwrap(self.model)
        config = getattr(plain, "config", None)
        classes = getattr(config, "problem_type", None) in (None, "single_label_classification")
        if smoothing and (loss is not None or not classes):
            raise ConfigError("label_smoothing_factor is for class labels, and not loss=")
        run.own_loss = compatibility.override_of(self, Trainer, "compute_loss")
        run.save_model = compatibility.override_of(self, Trainer, "save_model")
        run.loss = loss or (losses.smoothed_loss(smoothing) if smoothing else losses.model_loss)
        own = bool(run.own_loss or loss)
        run.forward_args = forward_arguments(plain, loss or smoothing or None)
        run.select_columns = select = partial(select_model_columns, {}, model=plain, own_loss=own)
        if run.train_loader is None:  # else what it loads is trained on
            run.train_dataset = select(self.train_dataset, "train_dataset", True)
        run.eval_dataset = select(self.eval_dataset, "eval_dataset", True)
        run.collate, run.processing_class = self.data_collator, self.processing_class
        asked = self.compute_metrics
        by_name: Any = asked is not None and not callable(asked)
        named: Any = partial(evaluation.named_metrics, config=config, manager=run.manager)
        run.compute_metrics = named(asked) if by_name else asked  # type: ignore

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute as if it had been passed to the constructor.

        Raises:
            ArgumentError: nothing would read it.
            ConfigError: it is read when a run begins, and one has begun.
        """
        made = "recorder" in vars(self)
        if made:
            compatibility.check_attribute(self, Trainer, name)
            if name == "args" or (name in READ_AT_START and self.recorder.status == "running"):
                raise ConfigError(f"{name} cannot change any more", do="make a new Trainer")
        super().__setattr__(name, value)
        if made and name == "model":
            self.run.model = self.run.device.prepare(value)
        if made and name in (*SETTABLE, *READ_AT_START, "compute_loss"):
            self._read_attributes()

    @property
    def state(self) -> TrainerState:
        return self.run.state

    def is_world_process_zero(self) -> bool:
        return self.run.device.rank == 0

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """Train to the end, or to a reason to stop.

        Args:
            resume_from_checkpoint: True goes on from the newest valid checkpoint in output_dir, a
                folder from that one; the result is that of a run that was never interrupted.

        Raises:
            ConfigError: there is nothing to train on, or the checkpoint is of another run.
            TrainingError: the loss is not finite, or there is no space for a checkpoint.
            ConfigError: another process trains in the run folder.
            SystemExit, KeyboardInterrupt: the process was told to end, by SIGTERM or Ctrl-C; the
                step was done and a checkpoint saved before.
        """
        run, args, recorder = self.run, self.args, self.recorder
        self._check_before_training()
        folder = checkpoint.find(run, resume_from_checkpoint, self._requested_precision == "auto")
        if run.state.global_step and folder is None:
            raise ConfigError("this Trainer has trained already", do="make a new Trainer")
        self._prepare_optimizer()
        evaluation.try_metrics(run, self.get_eval_dataloader)
        if folder is not None:
            checkpoint.restore(run, folder)
            run.log_message(f"going on from {folder}")
        self._announce()
        started, before = time.perf_counter(), replace(run.state)
        generator = run.device.rng_state()
        # The loop ends after the step; this is also in force while the reason is written down.
        with checkpoint.interruptible(run):
            recorder.start()
            try:
                loop.train(run, self.log, self.evaluate)
                if args.load_best_model_at_end:
                    checkpoint.load_best(run)
            except BaseException as error:
                recorder.write_status("failed", error)
                run.call_observers("minift_on_exception", exception=error)
                raise
            finally:
                run.device.set_rng_state(generator)  # as the caller left it
        seconds, steps = time.perf_counter() - started, run.state.global_step - before.global_step
        rows = run.epoch_rows * (run.state.epoch - before.epoch)
        speeds = evaluation.speed_metrics(seconds, rows, steps)
        metrics = {f"train_{name}": speed for name, speed in speeds.items()}
        metrics["train_loss"] = run.losses.mean()
        self.log(metrics)
        if run.state.stop_reason:
            run.log_message(f"stopped early: {run.state.stop_reason}")
        recorder.before_end()
        recorder.write_status("finished")
        run.call_observers("minift_on_train_end")
        return TrainOutput(run.state.global_step, metrics["train_loss"], metrics)

    def _check_before_training(self) -> None:
        """Refuse settings that do not fit the rows, before anything is built or written."""
        run, args = self.run, self.args
        run.train_loader = None
        self._read_attributes()
        args.check()
        changed = [name for name, value in self._read_once.items() if value != getattr(args, name)]
        if changed:
            what = f"args.{changed[0]} was changed after the Trainer was made, which reads it once"
            raise ConfigError(what, do="make the TrainingArguments with it, then the Trainer")
        run.train_loader = self.get_train_dataloader()
        run.train_dataset, run.train_collate = read_loader(run, run.train_loader, training=True)
        run.epoch_batches, plan = 0, epoch_plan(run, 0)
        run.epoch_batches = sum(map(len, plan))
        run.epoch_rows = sum(len(rows) for batches in plan for rows in batches)
        if not plan:
            got = f"{len(run.train_dataset)} rows, dataloader_drop_last={args.dataloader_drop_last}"
            raise ConfigError("there is no batch to train on", got=got, do="pass more rows")
        if not any(p.requires_grad for p in run.model.parameters()):
            raise ConfigError("every parameter of the model is frozen (requires_grad=False)")
        total = math.ceil(args.num_train_epochs * steps_per_epoch(run))
        run.state.max_steps = math.ceil(args.max_steps) if args.max_steps > 0 else total
        evaluation.check_decisions(run)

    def _prepare_optimizer(self) -> None:
        """Build the optimizer, the schedule and the sums of losses, as before the first step."""
        run, args = self.run, self.args
        run.device.setup_precision(run.precision)
        if args.full_determinism:
            torch.use_deterministic_algorithms(True)
        self.create_optimizer_and_scheduler(run.state.max_steps)
        run.optimizer, run.scheduler = self.optimizer, self.lr_scheduler
        names = serialization.parameter_names(run.optimizer, run.model)
        if not set(names) - {"?"} or run.scheduler is None:
            what = "there is no schedule, or no optimizer of the model's parameters"
            raise ConfigError(what, do="set self.optimizer and self.lr_scheduler for trainer.model")
        if isinstance(run.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ConfigError("the schedule must depend on the step alone", got="ReduceLROnPlateau")
        run.losses = losses.LossTracker(run.device)
        for name, dataset in (("train", run.train_dataset), ("eval", run.eval_dataset)):
            if dataset is not None and args.output_dir is not None:
                run.data_digests[name] = serialization.dataset_digest(dataset)
        if run.writes and args.save_strategy != "no":
            checkpoint.check_saving(run)

    # -- what a subclass may override, with the names and the signatures of transformers -----------

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:  # fmt: skip
        """Return the mean loss of a batch; with `return_outputs`, (loss, outputs).

        Only an override is called. It returns the mean over the batch, of which the loop makes
        a sum again: over any accumulation and any number of processes, batches count by their
        labelled rows.

        Args:
            model: the model.
            inputs: a collated batch, `labels` among it; a dict that it may change.
            return_outputs: True in evaluation.
            num_items_in_batch: the number of labels in `inputs` that are not -100, a tensor.
        """
        names = self.run.forward_args
        outputs = model(**{k: v for k, v in inputs.items() if names is None or k in names})
        loss_sum, count = self.run.loss(outputs, inputs)
        count = torch.as_tensor(count if num_items_in_batch is None else num_items_in_batch)
        loss = loss_sum / torch.where(count == 0, 1, count)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Set `self.optimizer` and `self.lr_scheduler`, unless they are set."""
        self.optimizer = self.create_optimizer() or self.optimizer
        scheduler = self.create_scheduler(num_training_steps=num_training_steps)
        self.lr_scheduler = scheduler or self.lr_scheduler

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Set `self.optimizer`, unless it is set: AdamW, as the arguments say."""
        args = self.args
        if self.optimizer is None:
            groups = parameter_groups(self.run.model if model is None else model, args.weight_decay)
            betas, eps = (args.adam_beta1, args.adam_beta2), args.adam_epsilon
            self.optimizer = AdamW(groups, lr=args.learning_rate, betas=betas, eps=eps)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Set `self.lr_scheduler`, unless it is set: the schedule in the arguments."""
        if self.lr_scheduler is None:
            name, warmup = self.args.lr_scheduler_type, self.args.warmup(num_training_steps)
            settings, optimizer = self.args.lr_scheduler_kwargs, optimizer or self.optimizer
            self.lr_scheduler = get_scheduler(name, optimizer, warmup, num_training_steps, settings)
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        """Return torch's sampler for the training rows. One that shuffles is seeded by the run."""
        dataset: Any = self.run.train_dataset if train_dataset is None else train_dataset
        in_order = self.args.train_sampling_strategy == "sequential"
        return SequentialSampler(dataset) if in_order else RandomSampler(dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Return what is trained on as torch's DataLoader; its batches are those of all processes.

        An override may return any DataLoader over a Dataset of minift's. Its rows, its sampler or
        batch sampler and its collate_fn are used; the rows are loaded by `args`' workers. Batches
        of another size than here are those of one process: as many as there are processes are
        computed at once.
        """
        dataset: Any = self.run.train_dataset
        if not dataset:
            raise ConfigError("there are no rows to train on", do="pass train_dataset=")
        size, drop_last = self.run.micro_batch_size, self.args.dataloader_drop_last
        sampler, collate = self._get_train_sampler(), self.run.collate
        return DataLoader(dataset, size, sampler=sampler, collate_fn=collate, drop_last=drop_last)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """Return a DataLoader over rows to evaluate; logits and labels have its order."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        self.run.select_columns(dataset, "eval_dataset", True)  # its labels must be there
        return self.get_test_dataloader(dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Return a DataLoader over rows to predict; logits and labels have its order."""
        dataset: Any = self.run.select_columns(test_dataset, "the dataset to evaluate")
        if not dataset:
            raise ConfigError("there are no rows to evaluate", do="pass eval_dataset=")
        collate, size = self.run.collate, self.args.per_device_eval_batch_size
        return DataLoader(dataset, size, collate_fn=collate)

    def evaluate(
        self, eval_dataset: Dataset | None = None, ignore_keys: Sequence[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:  # fmt: skip
        """Return loss and metrics; their names begin with the prefix.

        Args:
            eval_dataset: instead of the Trainer's.
            ignore_keys: of transformers; here of all outputs only the logits are kept.
            metric_key_prefix: of the names of the metrics.
        """
        loader = self.get_eval_dataloader(eval_dataset)
        result = evaluation.evaluate(self.run, loader, metric_key_prefix)
        self.log(result.metrics)
        self.run.call_observers("minift_on_evaluate", result=result)
        if eval_dataset is None and self.recorder.status != "running":
            self.recorder.record_scores(result, metric_key_prefix)
        return {**result.metrics, "epoch": self.run.state.epoch}

    def predict(
        self, test_dataset: Dataset, ignore_keys: Sequence[str] | None = None,
        metric_key_prefix: str = "test",
    ) -> evaluation.EvalLoopOutput:  # fmt: skip
        """Return logits in fp32 in the dataset's order, and metrics if it has labels."""
        loader = self.get_test_dataloader(test_dataset)
        return evaluation.evaluate(self.run, loader, metric_key_prefix, precision="fp32")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add a record of numbers to the history, to metrics.jsonl and to what observers see."""
        self.recorder.log(logs)

    def save_model(self, output_dir: Any = None, _internal_call: bool = False) -> None:
        """Save the model and its tokenizer, in the layout that transformers loads.

        What an override writes beside them is part of each checkpoint too.
        """
        if output_dir is None and self.args.output_dir is None:
            raise ArgumentError("save_model needs a folder", do="pass one: output_dir is None")
        if self.run.device.rank == 0:
            folder = output_dir or self.run.folder
            serialization.save_model(self.model, folder, self.run.device, self.processing_class)
        if self.recorder.status != "running":  # then one process saves, and the others wait
            self.run.device.barrier()

    def push_to_hub(
        self, commit_message: str = "End of training", *, repo_id: str | None = None,
        private: bool = False,
    ) -> str:  # fmt: skip
        """Save the model, and put it where others find it, with a card made from the run.

        The card has the model's scores on eval_dataset; if there are none yet, it is evaluated.

        Args:
            commit_message: what is recorded of the change.
            repo_id: "namespace/name" there; by default the name of the run folder, your own.
            private: whether only you may see it, where the repository is new.

        Returns:
            The address of what was uploaded; "" in all processes but the first.

        Raises:
            PluginError: no plugin publishes models.
        """
        if self.run.eval_dataset is not None and not self.recorder.current_scores:
            self.evaluate()
        self.save_model()
        address, folder, hook = "", self.run.folder, self.run.manager.hook.minift_publish
        if self.run.device.rank == 0:
            repo = repo_id or folder.resolve().name
            address = hook(folder=folder, repo=repo, message=commit_message, private=private)
            if address is None:
                raise PluginError("no plugin publishes models (hook minift_publish)")
        self.run.device.barrier()
        return address

    def _announce(self) -> None:
        run, args, ranks = self.run, self.args, self.run.device.world_size
        assert run.train_dataset is not None
        fed = run.train_dataset.column_names
        given = self.train_dataset or run.train_dataset  # an override may have brought its own
        unused = [name for name in given.column_names if name not in fed]
        rows = f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps} rows"
        rows += f" in each of {ranks} processes" if ranks > 1 else ""
        where = f"{run.device.description} in {run.precision} ({run.precision_reason})"
        steps = f"{run.epoch_rows} rows, {run.state.max_steps} steps of {rows}"
        run.log_message(f"training on {where}: {steps}")
        along = ", ".join(unused) or "none"
        run.log_message(f"columns that feed the model: {', '.join(fed)}; riding along: {along}")
