"""`Trainer`: checks what it is given, builds a `Run` from it, and calls the loop.

Whatever is wrong with the data, the labels or the settings is said here, before the first step.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from minift import distributed
from minift.collate import DataCollatorWithPadding
from minift.data.dataset import Dataset
from minift.device import choose_device, choose_precision
from minift.errors import ArgumentError, ColumnError, ConfigError, PluginError
from minift.models.pretrained import PretrainedModel
from minift.optim import AdamW, parameter_groups
from minift.plugins import default_manager, run_manager
from minift.schedule import get_scheduler
from minift.signals import on_sigterm
from minift.tokenizer import LABEL_NAMES
from minift.training import checkpoint, loop
from minift.training.arguments import TrainingArguments
from minift.training.checks import check_labels, decide_problem, inputs_of
from minift.training.evaluation import EvalLoopOutput, evaluate, named_metrics, scores_of
from minift.training.run import Run


class TrainOutput(NamedTuple):
    """What `train()` returns: updates done, mean loss per item, and the summary that was logged."""

    global_step: int
    training_loss: float
    metrics: dict[str, float]


class Trainer:
    """Fine-tune a model on a dataset.

    Args:
        model: a model of minift's, or any nn.Module whose output has `logits`, and `loss_sum` and
            `count` when it is given labels (or pass `loss`).
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
        self,
        model: Any,
        args: TrainingArguments | None = None,
        data_collator: Callable[[Any], dict[str, Any]] | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[Any], dict[str, float]] | str | Sequence[str] | None = None,
        callbacks: Sequence[object] | None = (),
        optimizers: tuple[Any, Any] | None = (None, None),
        loss: Callable[[Any, dict[str, Any]], tuple[Any, Any]] | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.args = args or TrainingArguments()
        self.model = model
        self._loss = loss
        self.processing_class = processing_class or tokenizer
        if data_collator is None:
            if self.processing_class is None:
                raise ArgumentError(
                    "Trainer needs a data_collator or a tokenizer to make batches with",
                    do="pass processing_class=tokenizer",
                )
            data_collator = DataCollatorWithPadding(self.processing_class)
        if isinstance(compute_metrics, str):
            compute_metrics = [compute_metrics]
        if compute_metrics is not None and not callable(compute_metrics):
            compute_metrics = named_metrics(compute_metrics)
        names, open_ended = inputs_of(model)
        if self.args.label_smoothing_factor:
            if loss is not None:
                raise ConfigError("label_smoothing_factor is for the model's own loss, not loss=")
            loss = smoothed_loss(self.args.label_smoothing_factor)
        if loss is not None and isinstance(model, PretrainedModel):
            names -= {"labels"}  # it gives the logits, and does not judge labels of other losses
        manager = default_manager()
        device = choose_device("cpu" if self.args.use_cpu else self.args.device, manager)
        self._wanted = self.args.wanted_precision()
        precision, reason = choose_precision(self._wanted, device)
        self.args.resolved(precision)
        self.run = Run(
            args=self.args,
            model=device.prepare(model),
            device=device,
            precision=precision,
            precision_reason=reason,
            collate=data_collator,
            manager=run_manager(manager, callbacks or ()),
            train_dataset=self._prepared(train_dataset, "train_dataset", must_have_labels=True),
            eval_dataset=self._prepared(eval_dataset, "eval_dataset", must_have_labels=False),
            compute_metrics=compute_metrics,
            forward_args=None if open_ended else names,
            loss=loss,
            optimizer=(optimizers or (None, None))[0],
            scheduler=(optimizers or (None, None))[1],
            processing_class=self.processing_class,
        )

    @property
    def state(self) -> Any:
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
        run, args = self.run, self.args
        self._check_plan()
        folder = self._checkpoint(resume_from_checkpoint)
        if run.state.global_step and folder is None:
            raise ConfigError("this Trainer has trained already", do="make a new Trainer")
        self._build()
        if folder is not None:
            checkpoint.restore(run, folder)
            run.log_message(f"going on from {folder}")
        self._announce()
        started, first_step = time.perf_counter(), run.state.global_step
        run.start()
        generator = run.device.rng_state()

        def terminate_after_the_step(signal_number: int) -> None:
            run.terminated = signal_number

        with on_sigterm(terminate_after_the_step):  # also while the reason is written down
            try:
                if run.writes and args.save_strategy != "no":
                    checkpoint.check_space(run.folder, checkpoint.size_of(run.model))
                loop.train(run)
                if args.load_best_model_at_end:
                    checkpoint.load_best(run)
            except BaseException as error:
                run.end(error)
                raise
            finally:
                run.device.set_rng_state(generator)  # the streams are the run's own: leave no trace
        seconds, steps = time.perf_counter() - started, run.state.global_step - first_step
        rows = len(run.train_dataset or ()) * steps / loop.steps_per_epoch(run)
        metrics: dict[str, float] = {
            "train_runtime": round(seconds, 3),
            "train_samples_per_second": round(rows / seconds, 3),
            "train_steps_per_second": round(steps / seconds, 3),
            "train_loss": run.window.mean(),
        }
        run.log(metrics)
        if run.state.stop_reason:
            run.log_message(f"stopped early: {run.state.stop_reason}")
        run.end()
        return TrainOutput(run.state.global_step, metrics["train_loss"], metrics)

    def _check_plan(self) -> None:
        """Settings that do not fit the rows there are, before anything is built or written."""
        run, args = self.run, self.args
        if run.train_dataset is None or len(run.train_dataset) == 0:
            raise ConfigError("there are no rows to train on", do="pass train_dataset=")
        if args.dataloader_drop_last and len(run.train_dataset) < run.rows_at_once:
            raise ConfigError(
                "dataloader_drop_last leaves no batch",
                got=f"{len(run.train_dataset)} rows",
                expected=f"at least {run.rows_at_once}",
            )
        if args.eval_strategy != "no" and run.eval_dataset is None:
            raise ConfigError("eval_strategy needs eval_dataset", got=args.eval_strategy)
        kind = getattr(getattr(run.model, "config", None), "problem_type", None)
        if args.label_smoothing_factor and kind not in (None, "single_label_classification"):
            raise ConfigError(
                "label_smoothing_factor is for class labels", got=kind, do="set it to 0"
            )
        if not any(p.requires_grad for p in run.model.parameters()):
            raise ConfigError("every parameter of the model is frozen (requires_grad=False)")
        total = int(np.ceil(args.num_train_epochs * loop.steps_per_epoch(run)))
        run.state.max_steps = args.max_steps if args.max_steps > 0 else total

    def _checkpoint(self, wanted: bool | str | Path | None) -> Path | None:
        """The checkpoint to go on from; its precision is kept where none was asked for."""
        run, args = self.run, self.args
        wanted = args.resume_from_checkpoint if wanted is None else wanted
        word = str(wanted).lower()
        before = checkpoint.run_of(run.folder, "run.json") if args.output_dir is not None else None
        if before and run.writes:
            checkpoint.remove_halves(run.folder, before)
        run.device.barrier()  # from here on all processes find the same
        if word in ("none", "false", "") and distributed.restarted() and before:
            word = "true" if checkpoint.listed(run.folder) else word
        if word in ("none", "false", ""):
            old = [p.name for p in checkpoint.listed(run.folder)] if run.writes else []
            if old:
                run.log_message(
                    f"a new run begins in {run.folder}, which holds {', '.join(old)} of others"
                )
            return None
        if word != "true":
            folder = checkpoint.named(Path(str(wanted)))
        elif args.output_dir is None:
            raise ConfigError("output_dir is None: nothing was saved", do="name a checkpoint")
        else:
            folder = checkpoint.newest(run.folder, before, run.log_message)
        if self._wanted == "auto":
            saved = checkpoint.read_state(folder)["arguments"]["precision"]
            run.precision, _ = choose_precision(saved, run.device)
            run.precision_reason = "as in the checkpoint"
            args.resolved(run.precision)
        return folder

    def _build(self) -> None:
        """Optimizer, schedule and the loop's sums, as they are before the first step."""
        run, args, total = self.run, self.args, self.run.state.max_steps
        run.device.setup_precision(run.precision)
        if args.full_determinism:
            torch.use_deterministic_algorithms(True)
        if run.optimizer is None:
            run.optimizer = AdamW(
                parameter_groups(run.model, args.weight_decay),
                lr=args.learning_rate,
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
            )
        if run.scheduler is None:
            run.scheduler = get_scheduler(
                args.lr_scheduler_type,
                run.optimizer,
                args.warmup(total),
                total,
                args.lr_scheduler_kwargs,
            )
        if isinstance(run.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ConfigError("the schedule must depend on the step alone", got="ReduceLROnPlateau")
        run.window = loop.Window(run.device)
        for name, dataset in (("train", run.train_dataset), ("eval", run.eval_dataset)):
            if dataset is not None and args.output_dir is not None:
                run.digests[name] = checkpoint.content_of(dataset)
        if run.writes and args.save_strategy != "no":  # what cannot be saved is said now
            json.dumps(checkpoint.state_of(run))
            checkpoint.optimizer_state(run.optimizer, run.model, run.device)

    def evaluate(
        self, eval_dataset: Dataset | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss and metrics, the keys beginning with the prefix."""
        dataset = self._prepared(eval_dataset, "eval_dataset", False)
        dataset = self.run.eval_dataset if dataset is None else dataset
        if dataset is None or not len(dataset):
            raise ConfigError("evaluate needs an eval_dataset with rows", do="pass eval_dataset=")
        result = evaluate(self.run, dataset, metric_key_prefix)
        self.run.log(result.metrics)
        self.run.call_observers("minift_on_evaluate", result=result)
        if dataset is self.run.eval_dataset:
            self.run.scores = scores_of(self.run, result, metric_key_prefix)
            if self.run.started:
                self.run.write_status(self.run.status)
        return {**result.metrics, "epoch": self.run.state.epoch}

    def predict(self, test_dataset: Dataset, metric_key_prefix: str = "test") -> EvalLoopOutput:
        """Logits for every row, in fp32 and in the dataset's order; metrics if it has labels."""
        dataset = self._prepared(test_dataset, "test_dataset", must_have_labels=False)
        assert dataset is not None
        return evaluate(self.run, dataset, metric_key_prefix, precision="fp32")

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """The model and its tokenizer, in the layout that transformers loads."""
        if output_dir is None and self.args.output_dir is None:
            raise ArgumentError("save_model needs a folder", do="pass one: output_dir is None")
        folder = Path(output_dir or self.run.folder)
        if self.run.device.rank == 0:
            checkpoint.save_model(self.model, folder, self.run.device, self.processing_class)
        self.run.device.barrier()

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        *,
        repo_id: str | None = None,
        private: bool = False,
    ) -> str:
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
        scored = self.run.scores.get("step") == self.run.state.global_step
        if self.run.eval_dataset is not None and not scored:
            self.evaluate()
        self.save_model()
        found = ""
        if self.run.device.rank == 0:
            repo = repo_id or self.run.folder.resolve().name
            publish = self.run.manager.hook.minift_publish
            found = publish(
                folder=self.run.folder, repo=repo, message=commit_message, private=private
            )
            if found is None:
                raise PluginError("no plugin publishes models (hook minift_publish)")
        self.run.device.barrier()
        return str(found)

    def _announce(self) -> None:
        run, args, ranks = self.run, self.args, self.run.device.world_size
        assert run.train_dataset is not None
        run.log_message(
            f"training on {run.device.description} in {run.precision} ({run.precision_reason}): "
            f"{len(run.train_dataset)} rows, {run.state.max_steps} steps of "
            f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps} rows"
            f"{f' in each of {ranks} processes' if ranks > 1 else ''}\n"
            f"columns that feed the model: {', '.join(run.train_dataset.column_names)}; "
            f"riding along: {', '.join(self._riding) or 'none'}"
        )

    # -- checks -----------------------------------------------------------------------------------

    def _prepared(
        self, dataset: Dataset | None, name: str, must_have_labels: bool
    ) -> Dataset | None:
        """The dataset with the columns that feed the model, after checking them."""
        if dataset is None:
            return None
        if not isinstance(dataset, Dataset):
            raise ArgumentError(
                f"{name} must be a minift Dataset",
                got=type(dataset).__name__,
                do="use Dataset.from_dict or Dataset.from_list",
            )
        taken, open_ended = inputs_of(self.model)
        label = next((n for n in LABEL_NAMES if n in dataset.features), None)
        if must_have_labels and label is None:
            raise ColumnError(
                f"{name} has no label column",
                got=f"columns {', '.join(dataset.column_names)}",
                expected=f"one of {', '.join(LABEL_NAMES)}",
                do="rename_column(your_label_column, 'labels')",
            )
        fed = [n for n in dataset.features if open_ended or n in taken]
        if not [n for n in fed if n not in LABEL_NAMES]:
            raise ColumnError(
                f"{name} has no column that the model takes",
                got=f"columns {', '.join(dataset.column_names)}",
                expected=f"some of {', '.join(sorted(taken))}",
                do="tokenize it first: dataset.map(tokenize, batched=True)",
            )
        if label is not None:
            judged = self._loss is None
            labelled = check_labels(dataset, label, self.model, name, must_have_labels, judged)
            if labelled and judged and isinstance(self.model, PretrainedModel):
                decide_problem(dataset, label, self.model.config, name)
            fed = [n for n in fed if n not in LABEL_NAMES] + ([label] if labelled else [])
        if must_have_labels:
            self._riding = [n for n in dataset.features if n not in fed]
        return dataset.select_columns(fed)


def smoothed_loss(share: float) -> Callable[[Any, dict[str, Any]], tuple[Any, Any]]:
    """Cross entropy with a share of the target spread evenly over all classes.

    (1 - share) * -log p_label + share * the mean over the classes of -log p; rows labelled -100
    have no part (Szegedy et al. 2016, arXiv 1512.00567).
    """

    def loss(outputs: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        logits, labels = outputs.logits.float(), batch["labels"].view(-1)
        total = torch.nn.functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=share
        )
        return total, (labels != -100).sum()

    return loss
