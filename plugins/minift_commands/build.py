"""From rows to the inputs of a model, to a Trainer: what the commands share.

`Inputs.prepare` makes what `resolve` chose true of the rows; texts become token ids by a cached
map; `build_trainer` and `train_and_save` are `minift train`, `predict_split` is `minift eval`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minift.data.dataset import Dataset
from minift.errors import ConfigError, DataError, MiniftError
from minift.evaluate import find_metric
from minift.models.auto import AutoConfig, AutoModelForSequenceClassification
from minift.tokenizer import AutoTokenizer, Tokenizer
from minift.training import evaluation
from minift.training.arguments import TrainingArguments
from minift.training.evaluation import EvalLoopOutput, EvalPrediction, named_metrics
from minift.training.trainer import Trainer
from minift_commands import labels
from minift_commands.options import DataOptions
from minift_commands.resolve import RunInputs, load_splits, resolve, unclear_columns
from minift_commands.tasks import find_task


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Rows by split, and how they become the model's inputs.

    Attributes:
        data: {split: rows}, with the labels in the column `labels`.
        source: the data options that named the rows.
        label_names: of the classes; none where a number is predicted.
        validation_fraction: the share of the training rows that became the validation rows.
        to_metric_inputs: of a task whose rows are scored by groups.
    """

    data: dict[str, Dataset]
    source: dict[str, str]
    text_columns: list[str]
    label_column: str | None
    label_names: list[str]
    metrics: list[str]
    max_length: int | None
    validation_fraction: float | None
    to_metric_inputs: Callable[[Any], Any] | None

    @classmethod
    def prepare(cls, options: DataOptions, run: RunInputs | None = None) -> "Inputs":
        """Load the rows, make all choices, and check what can be checked without a model.

        Args:
            options: of the command.
            run: of the run that the model is from.

        Raises:
            ArgumentError, ConfigError, DataError: the rows and the options do not fit each other.
        """
        task = find_task(options.task) if options.task else None
        data, source = load_splits(options, task)
        for split, dataset in data.items():
            if not len(dataset):
                raise DataError(f"the {split} data has no rows", got=source)
        if task and task.prepare:
            data = {split: task.prepare(dataset) for split, dataset in data.items()}
        first = next(iter(data.values()))
        choices = resolve(options, run or RunInputs(), task, first)
        columns, label, names = choices.columns or [], choices.label, choices.names
        unclear: list[MiniftError] = [] if columns else [unclear_columns(first)]
        if label is None and run is None:
            what = "cannot tell which column holds the labels"
            unclear.append(ConfigError(what, do="pass --label-column NAME"))
        if label is not None and names is None and any(label in d.features for d in data.values()):
            try:
                names = labels.infer_names(data, label)
            except DataError as error:
                unclear.append(error)
        if unclear:
            raise all_of(unclear)
        for split, dataset in data.items():
            labels.check_texts(dataset, columns, label, split)
        names = names or []
        if label is not None:
            labels.check_names(data, label, names, choices.names is not None)
            data = labels.with_labels(data, label, names, task is not None)
        undivided = "train" in data and "validation" not in data
        held_out = task.validation_fraction if task and undivided else None
        if held_out:
            data = labels.hold_out(data, held_out, names)
        metrics = choices.metrics or usual_metrics(len(names))
        own = task is not None and metrics[: len(task.metrics)] == list(task.metrics)
        groups = task.to_metric_inputs if task and own else None
        for name in metrics if groups is None else ():
            check_metric(name, len(names))
        return cls(
            data=data, source=source, text_columns=columns, label_column=label, label_names=names,
            metrics=metrics, max_length=choices.max_length, validation_fraction=held_out,
            to_metric_inputs=groups,
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Return what run.json keeps, for `eval`, `predict` and `verify-resume`."""
        drawn = f"{self.validation_fraction} of train, in like shares of classes, seed "
        return {
            "source": self.source,
            "columns": self.text_columns,
            "label": self.label_column,
            "names": self.label_names or None,
            "metric": self.metrics,
            "max_length": self.max_length,
            "validation": drawn + str(labels.HELD_OUT_SEED) if self.validation_fraction else None,
        }

    def metric_inputs(self, split: str) -> Callable[[EvalPrediction], Any]:
        """Return what makes (predictions, references) of a prediction on the split's rows."""
        if (to_metric_inputs := self.to_metric_inputs) is None:
            return evaluation.to_predictions
        rows = self.data.get(split)  # a Trainer keeps the model's columns; groups need all
        return lambda prediction: to_metric_inputs(
            replace(prediction, rows=rows and rows.select(range(len(prediction.predictions))))
        )

    def rows(self, split: str) -> Dataset:
        """Return the rows of a split.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in self.data:
            do = "pass --train-file" if split == "train" else "pass one of these as --split"
            raise ConfigError(f"there is no split {split!r}", expected=", ".join(self.data), do=do)
        return self.data[split]

    def tokenized(self, tokenizer: Any, split: str) -> Dataset:
        """Return the split's rows with the model's inputs beside their own columns.

        A line says how many of the rows are too long, and cut.
        """
        rows, columns = self.rows(split), self.text_columns
        limit = self.max_length or tokenizer.model_max_length
        options = {"tokenizer": tokenizer, "max_length": limit}
        dataset = rows.map(tokenize, batched=True, input_columns=columns, fn_kwargs=options)
        full = np.flatnonzero(dataset.lengths("input_ids") >= limit)  # most were longer
        longest = [0]
        for start in range(0, len(full), 1000):
            texts = rows.select(full[start : start + 1000])
            whole = tokenizer(*(texts[column] for column in columns))["input_ids"]
            longest += [len(ids) for ids in whole if len(ids) > limit]
        if cut := len(longest) - 1:
            what = f"{cut:,} of {len(rows):,} {split} rows are cut to {limit} tokens"
            print(f"note: {what}; the longest has {max(longest):,}", file=sys.stderr)
        return dataset


def load_tokenizer(model: str, max_length: int | None) -> Tokenizer:
    """Load a tokenizer that cuts at --max-length; saved with the model, it cuts there again.

    Raises:
        ConfigError: the model has no positions for so many tokens.
    """
    limit = AutoConfig.from_pretrained(model).max_seq_length
    if max_length is not None and not 0 < max_length <= limit:
        what = "--max-length is not a length that the model can take"
        do = "pass a smaller one, or take a model with more positions"
        raise ConfigError(what, got=max_length, expected=f"1 to {limit} tokens", do=do)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.model_max_length = max_length or tokenizer.model_max_length
    return tokenizer


def tokenize(*texts: Any, tokenizer: Any, max_length: int | None) -> Any:
    return tokenizer(*texts, truncation=True, max_length=max_length)


def all_of(errors: list[MiniftError]) -> MiniftError:
    """Return several errors as one, so that all that is missing can be given at once."""
    if len(errors) == 1:
        return errors[0]
    got = "; ".join(str(error.got) for error in errors if error.got)
    do = "; ".join(str(error.do) for error in errors)
    return ConfigError("; ".join(error.what for error in errors), got=got, do=do)


def usual_metrics(num_classes: int) -> list[str]:
    """Return the metrics of a number that is predicted (0 classes), of two classes, or of more."""
    if num_classes == 0:
        return ["pearsonr", "spearmanr"]
    return ["accuracy", "f1"] if num_classes == 2 else ["accuracy", "f1_macro", "f1_weighted"]


def check_metric(name: str, num_classes: int) -> None:
    """Compute a metric once, so that one that does not fit the labels fails before training.

    Raises:
        ConfigError: it does not fit the classes, or gives more than a number.
    """
    usual = ",".join(usual_metrics(num_classes))
    perfect: list[Any] = list(range(num_classes)) or [0.0, 1.0]
    try:
        values = find_metric(name)(perfect, perfect)
    except DataError as error:  # its own advice is for Python
        do = f"pass --metric {usual}, or one of them"
        raise ConfigError(error.what, got=error.got, do=do) from None
    if other := [key for key, value in values.items() if not isinstance(value, float)]:
        do = f"compute it from predictions: evaluate.load({name!r})"
        raise ConfigError(f"the metric {name} is more than a number: {', '.join(other)}", do=do)


def inputs_for(folder: str, options: DataOptions) -> Inputs:
    """Prepare the inputs of a trained model: its own rows, unless the options name others.

    Raises:
        ConfigError: the rows are of other classes than the model's, or in another order.
    """
    config, run = AutoConfig.from_pretrained(folder), RunInputs.read(folder)
    own_task = run.source.get("task")
    options = replace(options, task=options.task or own_task)
    elsewhere = options.dataset or options.train_file or options.validation_file
    if options.task == own_task and not elsewhere:
        options = replace(options, **run.source)  # type: ignore[arg-type]
    names = list(config.id2label.values())
    if config.problem_type == "regression" or len(names) == 1:
        names = []
    if run.choices.names is None:
        run = replace(run, choices=replace(run.choices, names=names))
    inputs = Inputs.prepare(options, run)
    unnamed = names == labels.default_names(len(inputs.label_names))
    same = [n.casefold() for n in inputs.label_names] == [n.casefold() for n in names]
    if not same and not unnamed:
        what = "the rows have other classes than the model, or another order of them"
        got, expected = (", ".join(n) or "a number" for n in (inputs.label_names, names))
        do = "if the names mean the same, in this order, rename those in the model's config.json"
        raise ConfigError(what, got=got, expected=expected, do=do)
    return inputs


def build_trainer(model: str, inputs: Inputs, args: TrainingArguments) -> Trainer:
    """Build a Trainer for a model folder and inputs; all is checked, nothing is written yet."""
    tokenizer = load_tokenizer(model, inputs.max_length)
    head: dict[str, Any] = {"id2label": dict(enumerate(inputs.label_names))}
    if not inputs.label_names:
        head = {"num_labels": 1, "problem_type": "regression"}
    network = AutoModelForSequenceClassification.from_pretrained(model, seed=args.seed, **head)
    validation = inputs.data.get("validation")
    scored = validation is not None and "labels" in validation.features
    trainer = Trainer(
        network,
        args,
        train_dataset=inputs.tokenized(tokenizer, "train"),
        eval_dataset=inputs.tokenized(tokenizer, "validation") if scored else None,
        processing_class=tokenizer,
        compute_metrics=named_metrics(inputs.metrics, inputs.metric_inputs("validation")),
    )
    trainer.recorder.inputs = inputs.record()
    return trainer


def train_and_save(trainer: Trainer) -> dict[str, float]:
    """Train, save, score the validation rows; run.json says "finished" only after all three.

    Observers hear of the evaluation before the run's end, at which a tracker closes.
    """
    metrics: dict[str, float] = {}

    def save_and_evaluate() -> None:
        try:
            trainer.recorder.write_status("saving")
            trainer.save_model()
            if trainer.run.eval_dataset is not None:
                metrics.update(trainer.evaluate())
        except BaseException as error:
            trainer.recorder.write_status("failed", error)
            trainer.run.call_observers("minift_on_exception", exception=error)
            raise

    trainer.recorder.before_end = save_and_evaluate
    trainer.train()  # says by itself how it ended
    return metrics


def predict_split(
    folder: str, inputs: Inputs, split: str | None, device: str, batch_size: int = 32
) -> tuple[str, EvalLoopOutput]:
    """Run a trained model on a split, by default the validation rows.

    Returns:
        The split's name, and logits, labels and metrics.

    Raises:
        DataError: its rows have no labels to compare with.
    """
    split = split or ("validation" if "validation" in inputs.data else next(iter(inputs.data)))
    print(f"scoring the split {split}", file=sys.stderr)
    settings = TrainingArguments(
        None, device=device, per_device_eval_batch_size=batch_size, precision="fp32",
        disable_tqdm=True,
    )  # fmt: skip
    tokenizer = load_tokenizer(folder, inputs.max_length)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    metrics = named_metrics(inputs.metrics, inputs.metric_inputs(split))
    trainer = Trainer(model, settings, processing_class=tokenizer, compute_metrics=metrics)
    output = trainer.predict(inputs.tokenized(tokenizer, split), metric_key_prefix=split)
    if output.label_ids is None or not (output.label_ids != -100).any():
        raise DataError(f"the split {split!r} has no labels to compare with")
    return split, output
