"""`Trainer`: checks what it is given, builds a `Run` from it, and calls the loop.

Whatever is wrong with the data, the labels or the settings is said here, before the first step.
"""

import inspect
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from minift.batching import DataCollatorWithPadding
from minift.data.dataset import Dataset
from minift.data.features import ClassLabel
from minift.device import choose_device, choose_precision
from minift.errors import ArgumentError, ColumnError, ConfigError, DataError
from minift.models.pretrained import PretrainedModel
from minift.optim import AdamW, parameter_groups
from minift.plugins import default_manager, run_manager
from minift.schedule import get_scheduler
from minift.training import loop
from minift.training.arguments import TrainingArguments
from minift.training.evaluation import EvalLoopOutput, evaluate, named_metrics
from minift.training.run import Run

LABEL_NAMES = ("labels", "label", "label_ids")


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
        callbacks: Sequence[object] = (),
        optimizers: tuple[Any, Any] = (None, None),
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
        if loss is not None and isinstance(model, PretrainedModel):
            names -= {"labels"}  # it gives the logits, and does not judge labels of other losses
        manager = default_manager()
        device = choose_device("cpu" if self.args.use_cpu else self.args.device, manager)
        precision, reason = choose_precision(self.args.wanted_precision(), device)
        self.args.resolved(precision)
        self.run = Run(
            args=self.args,
            model=device.prepare(model),
            device=device,
            precision=precision,
            precision_reason=reason,
            collate=data_collator,
            manager=run_manager(manager, callbacks),
            train_dataset=self._prepared(train_dataset, "train_dataset", must_have_labels=True),
            eval_dataset=self._prepared(eval_dataset, "eval_dataset", must_have_labels=False),
            compute_metrics=compute_metrics,
            takes=None if open_ended else names,
            loss=loss,
            optimizer=optimizers[0],
            scheduler=optimizers[1],
        )

    @property
    def state(self) -> Any:
        return self.run.state

    def train(self) -> TrainOutput:
        """Train to the end, or to a reason to stop.

        Raises:
            ConfigError: there is nothing to train on.
            TrainingError: the loss is not finite.
        """
        run, args = self.run, self.args
        if run.state.global_step:
            raise ConfigError("this Trainer has trained already", do="make a new Trainer")
        if run.train_dataset is None or len(run.train_dataset) == 0:
            raise ConfigError("there are no rows to train on", do="pass train_dataset=")
        if args.dataloader_drop_last and len(run.train_dataset) < args.per_device_train_batch_size:
            raise ConfigError(
                "dataloader_drop_last leaves no batch",
                got=f"{len(run.train_dataset)} rows",
                expected=f"at least {args.per_device_train_batch_size}",
            )
        if args.eval_strategy != "no" and run.eval_dataset is None:
            raise ConfigError("eval_strategy needs eval_dataset", got=args.eval_strategy)
        per_epoch = loop.steps_per_epoch(run)
        total = (
            args.max_steps
            if args.max_steps > 0
            else int(np.ceil(args.num_train_epochs * per_epoch))
        )
        run.state.max_steps = total
        if run.optimizer is None:
            run.optimizer = AdamW(
                parameter_groups(run.model, args.weight_decay),
                lr=args.learning_rate,
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
            )
        if run.scheduler is None:
            warmup = args.warmup(total)
            run.scheduler = get_scheduler(args.lr_scheduler_type, run.optimizer, warmup, total)
        self._announce(total)
        started = time.perf_counter()
        run.start()
        generator = run.device.rng_state()
        try:
            loop.train(run)
        except BaseException as error:
            run.end(error)
            raise
        finally:
            run.device.set_rng_state(generator)  # the run's streams are its own: leave no trace
        seconds = time.perf_counter() - started
        metrics: dict[str, float] = {
            "train_runtime": round(seconds, 3),
            "train_samples_per_second": round(
                run.state.epoch * len(run.train_dataset) / seconds, 3
            ),
            "train_steps_per_second": round(run.state.global_step / seconds, 3),
            "train_loss": run.train_loss or 0.0,
        }
        run.log(metrics)
        if run.state.stop_reason:
            run.say(f"stopped early: {run.state.stop_reason}")
        run.end()
        return TrainOutput(run.state.global_step, metrics["train_loss"], metrics)

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
        self.run.tell("minift_evaluated", result=result)
        return {**result.metrics, "epoch": self.run.state.epoch}

    def predict(self, test_dataset: Dataset, metric_key_prefix: str = "test") -> EvalLoopOutput:
        """Logits for every row, in fp32 and in the dataset's order; metrics if it has labels."""
        dataset = self._prepared(test_dataset, "test_dataset", must_have_labels=False)
        assert dataset is not None
        return evaluate(self.run, dataset, metric_key_prefix, precision="fp32")

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """The model and its tokenizer, in the layout that transformers loads."""
        folder = Path(output_dir or self.args.output_dir)
        tensors = self.run.device.to_host(self.model.state_dict())
        self.model.save_pretrained(folder, tensors)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _announce(self, total: int) -> None:
        run, args = self.run, self.args
        assert run.train_dataset is not None
        run.say(
            f"training on {run.device.kind} in {run.precision} ({run.precision_reason}): "
            f"{len(run.train_dataset)} rows, {total} steps of "
            f"{args.per_device_train_batch_size} x {args.gradient_accumulation_steps} rows\n"
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
        self._riding = [n for n in dataset.features if n not in fed]
        return dataset.select_columns(fed)


def inputs_of(model: Any) -> tuple[set[str], bool]:
    """The names that `model.forward` takes, and whether it takes any name at all."""
    parameters = inspect.signature(model.forward).parameters
    names = {n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_labels(
    dataset: Dataset, label: str, model: Any, name: str, training: bool, judged: bool
) -> bool:
    """Whether the dataset is labelled; labels that the model cannot learn from are an error.

    With a loss of the caller's, numbers are not `judged` by what the model's own could learn from.

    A test set whose labels are all -1, as GLUE's are, counts as unlabelled; anywhere else -1 is an
    error. -100 marks a row that has no part in the loss.
    """
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    column = dataset.table(columns=[label]).column(label)
    if not len(column) or num_labels is None:
        return True
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise DataError(
            f"the labels in {name} are strings",
            got=f"{column[0].as_py()!r:.40}",
            expected=f"class numbers 0 to {num_labels - 1}",
            do=f"dataset.class_encode_column({label!r}), or --label-names in `minift train`",
        )
    if column.null_count:
        raise DataError(f"{column.null_count} rows of {name} have no label", do="filter them out")
    if pa.types.is_floating(kind) and pc.any(pc.is_nan(column)).as_py():
        row = pc.index(pc.is_nan(column), True).as_py()
        raise DataError(f"a label in {name} is NaN", got=f"row {row}", do="filter such rows out")
    if not pa.types.is_integer(kind) or not judged:
        return not pa.types.is_integer(kind) or training or pc.unique(column).to_pylist() != [-1]
    if num_labels == 1:
        raise ConfigError(
            f"the labels in {name} are integers, but the model has one output",
            got="num_labels=1, integer labels",
            expected="num_labels of at least 2, or float labels for regression",
            do="pass num_labels=, or cast the labels to float",
        )
    values = pc.unique(column).to_pylist()
    if values == [-1] and not training:
        return False
    wrong = sorted(v for v in values if v != -100 and not 0 <= v < num_labels)
    if wrong:
        feature = dataset.features[label]
        names = f" ({', '.join(feature.names)})" if isinstance(feature, ClassLabel) else ""
        row = pc.index(column, wrong[0]).as_py()
        raise DataError(
            f"{name} has labels that the model has no class for",
            got=f"{', '.join(map(str, wrong[:5]))}, first in row {row}",
            expected=f"class numbers 0 to {num_labels - 1}{names}",
            do="a negative label means unlabelled: filter such rows out"
            if wrong[0] < 0
            else f"load the model with num_labels={max(values) + 1} (in `minift train`, name all "
            "classes with --label-names), or correct the labels",
        )
    return True


def is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def decide_problem(dataset: Dataset, label: str, config: Any, name: str) -> None:
    """What kind of problem the labels pose, from their type: decided once, before training.

    Lists are several labels a row, other numbers with a fraction are to be predicted, integers are
    classes. A configuration that says otherwise is an error.
    """
    column = dataset.table(columns=[label]).column(label)
    lists, numbers = is_list(column.type), pa.types.is_floating(column.type)
    if not (lists or numbers or pa.types.is_integer(column.type)):
        raise DataError(
            f"the labels in {name} are no numbers",
            got=f"{column.type}",
            expected="class numbers, numbers to predict, or lists of 0 and 1",
        )
    width = pc.unique(pc.list_value_length(column)).to_pylist() if lists else [1]
    fits = ["single_label_classification"]
    if lists and config.num_labels > 1:
        fits = ["multi_label_classification", "regression"]
    elif lists or numbers:
        fits = ["regression"]
    if (lists or numbers) and width != [config.num_labels]:
        raise DataError(
            f"the labels in {name} do not fit the outputs of the model",
            got=f"{column.type} with {', '.join(map(str, width[:5]))} numbers a row, "
            f"num_labels={config.num_labels}",
            expected="as many numbers a row as num_labels; or class numbers, which are integers",
            do="pass num_labels= when the model is loaded, or cast the labels",
        )
    config.problem_type = config.problem_type or fits[0]
    if config.problem_type not in fits:
        raise ConfigError(
            f"the labels in {name} are not those of {config.problem_type}",
            got=f"{column.type}",
            do=f"load the model with problem_type={fits[0]!r}, or cast the labels",
        )
