"""`Trainer`: checks its arguments, builds a `Run` from them, and calls the loop.

Whatever is wrong with the data, the labels or the settings is an error before the first step.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minift import distributed, files
from minift.collate import DataCollatorWithPadding
from minift.data.dataset import Dataset
from minift.device import choose_device, choose_precision
from minift.errors import ArgumentError, ConfigError, PluginError
from minift.models.weights import unwrap
from minift.optim import AdamW, parameter_groups
from minift.plugins import default_manager, manager_for_run
from minift.schedule import get_scheduler
from minift.signals import on_sigterm
from minift.training import checkpoint, loop, serialization
from minift.training.arguments import TrainingArguments
from minift.training.batches import steps_per_epoch
from minift.training.checks import forward_arguments, select_model_columns
from minift.training.evaluation import EvalLoopOutput, evaluate, named_metrics
from minift.training.losses import LossFunction, LossTracker, choose_loss
from minift.training.recorder import Recorder
from minift.training.run import Run, TrainerState


class TrainOutput(NamedTuple):
    """The result of `train()`: updates done, mean loss per item, and the logged summary."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer:
    """Fine-tune a model on a dataset.

    Args:
        model: a model of minift's, or any nn.Module whose output has `logits`, and `loss_sum` and
            `num_items` when it gets labels (or pass `loss`).
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
        loss: LossFunction | None = None, tokenizer: Any = None,
    ) -> None:  # fmt: skip
        self.model, self.args = model, args or TrainingArguments()
        self.processing_class = processing_class or tokenizer
        if data_collator is None and self.processing_class is None:
            what = "Trainer needs a data_collator or a tokenizer to make batches with"
            raise ArgumentError(what, do="pass processing_class=tokenizer")
        if compute_metrics is not None and not callable(compute_metrics):
            compute_metrics = named_metrics(compute_metrics)
        plain = unwrap(model)
        self._select_columns = partial(select_model_columns, model=plain, own_loss=bool(loss))
        loss = choose_loss(loss, self.args.label_smoothing_factor)
        manager = default_manager()
        device = choose_device("cpu" if self.args.use_cpu else self.args.device, manager)
        self._requested_precision = self.args.requested_precision()
        precision, reason = choose_precision(self._requested_precision, device)
        self.args.set_precision(precision)
        optimizer, scheduler = optimizers or (None, None)
        self.run = Run(
            args=self.args,
            model=device.prepare(model),
            device=device,
            precision=precision,
            precision_reason=reason,
            collate=data_collator or DataCollatorWithPadding(self.processing_class),
            manager=manager_for_run(manager, callbacks or ()),
            train_dataset=self._select_columns(train_dataset, "train_dataset", True),
            eval_dataset=self._select_columns(eval_dataset, "eval_dataset"),
            compute_metrics=compute_metrics,
            forward_args=forward_arguments(plain, loss),
            loss=loss,
            optimizer=optimizer,
            scheduler=scheduler,
            processing_class=self.processing_class,
        )
        self.recorder = Recorder(self.run)
        self._all_columns = train_dataset.column_names if train_dataset is not None else []

    @property
    def state(self) -> TrainerState:
        return self.run.state

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """Train to the end, or to a reason to stop.

        Args:
            resume_from_checkpoint: True goes on from the newest valid checkpoint in output_dir, a
                folder from that one; the result is that of a run that was never interrupted.

        Raises:
            ConfigError: there is nothing to train on, or the checkpoint is of another run.
            TrainingError: the loss is not finite, or there is no space for a checkpoint.
            SystemExit: the process was told to end (SIGTERM); a checkpoint was saved before.
        """
        run, args, recorder = self.run, self.args, self.recorder
        self._check_before_training()
        folder = self._checkpoint_to_resume(resume_from_checkpoint)
        if run.state.global_step and folder is None:
            raise ConfigError("this Trainer has trained already", do="make a new Trainer")
        self._build_optimizer()
        if folder is not None:
            checkpoint.restore(run, folder)
            run.log_message(f"going on from {folder}")
        self._announce()
        started, first_step = time.perf_counter(), run.state.global_step
        recorder.start()
        generator = run.device.rng_state()
        # The loop ends after the step; this is also in force while the reason is written down.
        with on_sigterm(partial(setattr, run, "termination_signal")):
            try:
                if run.writes and args.save_strategy != "no":
                    checkpoint.check_space(run)
                loop.train(run, recorder)
                if args.load_best_model_at_end:
                    checkpoint.load_best(run)
            except BaseException as error:
                recorder.fail(error)
                raise
            finally:
                run.device.set_rng_state(generator)  # as the caller left it
        seconds, steps = time.perf_counter() - started, run.state.global_step - first_step
        rows = len(run.train_dataset or ()) * steps / steps_per_epoch(run)
        speeds = {"samples_per_second": rows / seconds, "steps_per_second": steps / seconds}
        speeds = {"runtime": seconds, **speeds}
        metrics = {f"train_{name}": round(value, 3) for name, value in speeds.items()}
        metrics["train_loss"] = run.losses.mean()
        recorder.log(metrics)
        if run.state.stop_reason:
            run.log_message(f"stopped early: {run.state.stop_reason}")
        recorder.finish()
        return TrainOutput(run.state.global_step, metrics["train_loss"], metrics)

    def _check_before_training(self) -> None:
        """Refuse settings that do not fit the rows, before anything is built or written."""
        run, args = self.run, self.args
        if run.train_dataset is None or len(run.train_dataset) == 0:
            raise ConfigError("there are no rows to train on", do="pass train_dataset=")
        if args.dataloader_drop_last and len(run.train_dataset) < run.micro_batch_size:
            got, expected = f"{len(run.train_dataset)} rows", f"at least {run.micro_batch_size}"
            raise ConfigError("dataloader_drop_last leaves no batch", got=got, expected=expected)
        if args.eval_strategy != "no" and run.eval_dataset is None:
            raise ConfigError("eval_strategy needs eval_dataset", got=args.eval_strategy)
        problem = getattr(getattr(unwrap(run.model), "config", None), "problem_type", None)
        if args.label_smoothing_factor and problem not in (None, "single_label_classification"):
            what = "label_smoothing_factor is for class labels"
            raise ConfigError(what, got=problem, do="set it to 0")
        if not any(p.requires_grad for p in run.model.parameters()):
            raise ConfigError("every parameter of the model is frozen (requires_grad=False)")
        total = math.ceil(args.num_train_epochs * steps_per_epoch(run))
        run.state.max_steps = math.ceil(args.max_steps) if args.max_steps > 0 else total

    def _checkpoint_to_resume(self, resume: bool | str | Path | None) -> Path | None:
        """Find the checkpoint to go on from; its precision is kept where none was asked for."""
        run, args = self.run, self.args
        resume = args.resume_from_checkpoint if resume is None else resume
        word = str(resume).lower()
        in_folder = args.output_dir is not None
        before = checkpoint.last_run_id(run.folder) if in_folder else None
        if before and run.writes:
            files.recover(run.folder, owner=before)
        run.device.barrier()  # from here on all processes see the same files
        others = [p.name for p in checkpoint.list_checkpoints(run.folder)] if in_folder else []
        if word in ("none", "false", "") and distributed.restarted() and before and others:
            word = "true"
        if word in ("none", "false", ""):
            if others and run.writes:
                names = ", ".join(others)
                run.log_message(f"a new run begins in {run.folder}, which holds {names} of others")
            return None
        if word != "true":
            folder = checkpoint.verified(files.local_path(str(resume)))
        elif not in_folder:
            raise ConfigError("output_dir is None: nothing was saved", do="name a checkpoint")
        else:
            folder = checkpoint.newest_valid(run.folder, before, run.log_message)
        if self._requested_precision == "auto":
            saved = checkpoint.read_state(folder)["arguments"]["precision"]
            run.precision, _ = choose_precision(saved, run.device)
            run.precision_reason = "as in the checkpoint"
            args.set_precision(run.precision)
        return folder

    def _build_optimizer(self) -> None:
        """Build the optimizer, the schedule and the sums of losses, as before the first step."""
        run, args, total = self.run, self.args, self.run.state.max_steps
        run.device.setup_precision(run.precision)
        if args.full_determinism:
            torch.use_deterministic_algorithms(True)
        if run.optimizer is None:
            groups = parameter_groups(run.model, args.weight_decay)
            betas, eps = (args.adam_beta1, args.adam_beta2), args.adam_epsilon
            run.optimizer = AdamW(groups, lr=args.learning_rate, betas=betas, eps=eps)
        if run.scheduler is None:
            name, warmup = args.lr_scheduler_type, args.warmup(total)
            settings = args.lr_scheduler_kwargs
            run.scheduler = get_scheduler(name, run.optimizer, warmup, total, settings)
        if isinstance(run.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ConfigError("the schedule must depend on the step alone", got="ReduceLROnPlateau")
        run.losses = LossTracker(run.device)
        for name, dataset in (("train", run.train_dataset), ("eval", run.eval_dataset)):
            if dataset is not None and args.output_dir is not None:
                run.data_digests[name] = serialization.dataset_digest(dataset)
        if run.writes and args.save_strategy != "no":  # refuse now what could not be saved later
            serialization.check_model(run.model)
            json.dumps(serialization.run_state(run)[1])

    def evaluate(
        self, eval_dataset: Dataset | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return loss and metrics; their names begin with the prefix."""
        dataset = self._select_columns(eval_dataset, "eval_dataset")
        dataset = self.run.eval_dataset if dataset is None else dataset
        if dataset is None or not len(dataset):
            raise ConfigError("evaluate needs an eval_dataset with rows", do="pass eval_dataset=")
        result = evaluate(self.run, dataset, metric_key_prefix)
        self.recorder.log(result.metrics)
        self.run.call_observers("minift_on_evaluate", result=result)
        if dataset is self.run.eval_dataset:
            self.recorder.record_scores(result, metric_key_prefix)
        return {**result.metrics, "epoch": self.run.state.epoch}

    def predict(self, test_dataset: Dataset, metric_key_prefix: str = "test") -> EvalLoopOutput:
        """Return logits in fp32 in the dataset's order, and metrics if it has labels."""
        dataset = self._select_columns(test_dataset, "test_dataset")
        assert dataset is not None
        return evaluate(self.run, dataset, metric_key_prefix, precision="fp32")

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Save the model and its tokenizer, in the layout that transformers loads."""
        if output_dir is None and self.args.output_dir is None:
            raise ArgumentError("save_model needs a folder", do="pass one: output_dir is None")
        if self.run.device.rank == 0:
            folder = output_dir or self.run.folder
            serialization.save_model(self.model, folder, self.run.device, self.processing_class)
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
        if self.args.output_dir is None:
            raise ArgumentError("push_to_hub needs a run folder", do="pass output_dir=")
        if self.run.eval_dataset is not None and not self.recorder.current_scores:
            self.evaluate()
        self.save_model()
        address = ""
        if self.run.device.rank == 0:
            folder = self.run.folder
            repo, publish = repo_id or folder.resolve().name, self.run.manager.hook.minift_publish
            address = publish(folder=folder, repo=repo, message=commit_message, private=private)
            if address is None:
                raise PluginError("no plugin publishes models (hook minift_publish)")
        self.run.device.barrier()
        return str(address)

    def _announce(self) -> None:
        run, args, ranks = self.run, self.args, self.run.device.world_size
        assert run.train_dataset is not None
        fed = run.train_dataset.column_names
        unused = [name for name in self._all_columns if name not in fed]
        run.log_message(
            f"training on {run.device.description} in {run.precision} ({run.precision_reason}): "
            f"{len(run.train_dataset)} rows, {run.state.max_steps} steps of "
            f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps} rows"
            f"{f' in each of {ranks} processes' if ranks > 1 else ''}\n"
            f"columns that feed the model: {', '.join(fed)}; "
            f"riding along: {', '.join(unused) or 'none'}"
        )
