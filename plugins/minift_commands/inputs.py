"""From files to the inputs of a model, to a Trainer: what this plugin's commands and others share.

Which columns hold text and which the label is taken from the options, from a task that a plugin
knows, from a finished run's run.json, or from names that leave no doubt, in this order. Labels
become class numbers in the column `labels`; texts become token ids by a cached map.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from minift import plugins
from minift.data.dataset import Dataset
from minift.data.features import ClassLabel
from minift.data.loading import load_dataset
from minift.errors import ArgumentError, ConfigError, DataError, nearest
from minift.evaluate import find_metric
from minift.models.auto import AutoModelForSequenceClassification
from minift.tokenizer import AutoTokenizer
from minift.training.arguments import TrainingArguments
from minift.training.run import status_of
from minift.training.trainer import Trainer

OPTIONS = (
    *("dataset", "train_file", "validation_file", "task"),
    *("text_columns", "label_column", "label_names", "metric", "max_length"),
)


@dataclasses.dataclass
class Inputs:
    """Which rows, and how they become the model's inputs; run.json keeps it for `eval`."""

    data: dict[str, Dataset]  # by split; not recorded
    source: dict[str, str]  # the options that named the data
    text_columns: list[str]
    label_column: str | None
    names: list[str]
    metrics: list[str]
    max_length: int | None

    @classmethod
    def from_args(cls, args: argparse.Namespace, known: dict[str, Any] | None = None) -> "Inputs":
        """From the options; what they leave open, from the task, a finished run, or the data."""
        args = argparse.Namespace(**{**dict.fromkeys(OPTIONS), **vars(args)})
        known = {**(known or {}), **find_task(args.task)}
        data, source = load_splits(args)
        for split, dataset in data.items():
            if not len(dataset):
                raise DataError(f"the {split} data has no rows", got=source)
        first = next(iter(data.values()))
        texts = split_words(args.text_columns) or known.get("columns") or guess_texts(first)
        label = args.label_column or known.get("label") or guess_label(first)
        for split, dataset in data.items():
            check_texts(dataset, texts, label, split)
        names = split_words(args.label_names) or known.get("names") or []
        data = {split: labelled(ds, label, names, split) for split, ds in data.items()}
        names = names or infer_names(data, label)
        check_names(data, names)
        metrics = split_words(args.metric) or known.get("metric") or default_metrics(names)
        metrics = [metrics] if isinstance(metrics, str) else metrics
        classes = list(range(len(names)))
        for metric in metrics:  # one that does not fit so many classes fails before training
            find_metric(metric)(classes, classes)
        length = known.get("max_length") if args.max_length is None else args.max_length
        return cls(data, source, texts, label, names, metrics, length)

    def record(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "columns": self.text_columns,
            "label": self.label_column,
            "names": self.names,
            "metric": self.metrics,
            "max_length": self.max_length,
        }

    def tokenized(self, tokenizer: Any, split: str) -> Dataset:
        """The split's rows with the model's inputs beside their own columns."""
        if split not in self.data:
            raise ConfigError(
                f"there is no split {split!r}",
                expected=", ".join(self.data),
                do="pass --train-file" if split == "train" else "pass one of these as --split",
            )
        return self.data[split].map(
            tokenize,
            batched=True,
            input_columns=self.text_columns,
            fn_kwargs={"tokenizer": tokenizer, "max_length": self.max_length},
        )


def tokenize(*texts: Any, tokenizer: Any, max_length: int | None) -> Any:
    return tokenizer(*texts, truncation=True, max_length=max_length)


def split_words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def run_record(folder: str) -> dict[str, Any]:
    """What run.json says of the inputs; {} for a model that came without."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return {}
    said = json.loads(path.read_text())
    if said.get("status") != "finished":
        print(f"note: the run in {folder} is recorded as {said.get('status')}", file=sys.stderr)
    return said.get("inputs") or {}


def find_task(name: str | None) -> dict[str, Any]:
    tasks = plugins.registry(plugins.default_manager(), "minift_tasks")
    if name is None:
        return {}
    if name not in tasks:
        raise ConfigError(f"no plugin knows the task {name!r}", expected=nearest(name, tasks))
    return tasks[name].value


def load_splits(args: argparse.Namespace) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The splits, and the options that named them, with whole paths so that they stay true."""
    files = {"train": args.train_file, "validation": args.validation_file}
    files = {split: file for split, file in files.items() if file}
    if args.dataset:
        if files:
            raise ArgumentError("pass --dataset or --train-file and --validation-file, not both")
        return dict(load_dataset(args.dataset)), {"dataset": whole_path(args.dataset)}
    if not files:
        raise ArgumentError("no data was given", do="pass --dataset FOLDER or --train-file FILE")
    data = {split: load_dataset(file, split="train") for split, file in files.items()}
    return data, {f"{split}_file": whole_path(file) for split, file in files.items()}


def whole_path(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def check_texts(dataset: Dataset, columns: list[str], label: str | None, split: str) -> None:
    """One or two columns, of text in every row."""
    if not 1 <= len(columns) <= 2 or label in columns:
        raise ConfigError(
            "the text is in one column, or in two for pairs, and not in that of the labels",
            got=", ".join(columns),
            do="pass --text-columns NAME or --text-columns FIRST,SECOND",
        )
    dataset.check_columns(columns)
    for name in columns:
        values = dataset.table(columns=[name]).column(name)
        if getattr(dataset.features[name], "dtype", "") not in ("string", "large_string"):
            raise DataError(
                f"the column {name!r} of the {split} data is no text",
                got=f"{dataset.features[name]!r}",
                expected="strings; in a csv file, a column of nothing but numbers is numbers",
                do="pass --text-columns with the columns that hold the text",
            )
        if values.null_count:
            row = values.is_null().to_pylist().index(True)
            raise DataError(
                f"the column {name!r} of the {split} data has rows without text",
                got=f"{values.null_count} of {len(dataset)}, the first is row {row}",
                do="remove these rows, or put an empty string there",
            )


def check_names(data: dict[str, Dataset], names: list[str]) -> None:
    """Class names in the data must be those of the model, in the same order."""
    for split, dataset in data.items():
        feature = dataset.features.get("labels")
        default = [f"LABEL_{i}" for i in range(len(names))]
        if isinstance(feature, ClassLabel) and names != default and feature.names != names:
            raise DataError(
                f"the classes of the {split} data have other names, or another order",
                got=", ".join(feature.names),
                expected=", ".join(names),
            )


def guess_texts(dataset: Dataset) -> list[str]:
    """The text columns, where their names leave no doubt."""
    strings = [n for n, f in dataset.features.items() if getattr(f, "dtype", "") == "string"]
    for names in (["sentence1", "sentence2"], ["text"], ["sentence"]):
        if set(names) <= set(dataset.features):  # if one of them is no text, check_texts says so
            return names
    if len(strings) == 1:
        return strings
    raise ConfigError(
        "cannot tell which columns hold the text",
        got=f"columns {', '.join(dataset.column_names)}",
        do="pass --text-columns NAME, or --text-columns FIRST,SECOND for pairs",
    )


def guess_label(dataset: Dataset) -> str | None:
    return next((n for n in ("label", "labels", "label_ids") if n in dataset.features), None)


def labelled(dataset: Dataset, label: str | None, names: list[str], split: str) -> Dataset:
    """The dataset with its labels as class numbers in the column `labels`, if it has them."""
    if label is None or label not in dataset.features:
        if split == "train":
            dataset.check_columns([label or "label"])
        return dataset
    feature = dataset.features[label]
    if getattr(feature, "dtype", "") == "string":
        if not names:
            classes = dataset.unique(label)
            shown = ",".join(sorted(map(str, classes))[:20])
            raise DataError(
                f"the labels in column {label!r} are strings",
                got=f"{classes[0]!r}"
                + (f" and {len(classes) - 1} others" if len(classes) > 1 else ""),
                expected="class numbers from 0, or names that say which number each string is",
                do=f"pass --label-names {shown}",
            )
        try:
            dataset = dataset.cast_column(label, ClassLabel(names=names))
        except DataError as error:
            raise DataError(
                f"the {split} data has a label that --label-names does not have: {error.what}",
                expected=", ".join(names),
            ) from None
    return dataset if label == "labels" else dataset.rename_column(label, "labels")


def infer_names(data: dict[str, Dataset], label: str | None) -> list[str]:
    """Class names: from the feature, or LABEL_0... for as many numbers as training has."""
    first = data.get("train") or next(iter(data.values()))
    if label is None or "labels" not in first.features:
        return []
    feature = first.features["labels"]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    if not str(getattr(feature, "dtype", "")).startswith(("int", "uint")):
        raise DataError(
            f"the labels in column {label!r} are no class numbers",
            got=f"{first.features['labels']!r}",
            expected="integers from 0",
        )
    values = sorted(v for v in first.unique("labels") if v is not None and v >= 0)
    if values != list(range(len(values))):
        raise DataError(
            f"the classes in column {label!r} are not 0, 1, 2, ...",
            got=", ".join(map(str, values[:8])),
            expected=f"0 to {len(values) - 1}",
            do="renumber them, or name every class, also one without rows: --label-names a,b,c",
        )
    return [f"LABEL_{i}" for i in range(max(len(values), 2))]


def default_metrics(names: list[str]) -> list[str]:
    return ["accuracy", "f1"] if len(names) == 2 else ["accuracy"]


def build_trainer(model: str, inputs: Inputs, args: TrainingArguments) -> Trainer:
    """A Trainer for a model folder and inputs; everything is checked, nothing is written yet."""
    if inputs.label_column is None:
        raise ConfigError(
            "cannot tell which column holds the labels", do="pass --label-column NAME"
        )
    tokenizer = AutoTokenizer.from_pretrained(model)
    if inputs.max_length is not None:  # saved with the model, so that `predict` cuts there too
        tokenizer.model_max_length = min(inputs.max_length, tokenizer.model_max_length)
    network = AutoModelForSequenceClassification.from_pretrained(
        model, id2label=dict(enumerate(inputs.names)), seed=args.seed
    )
    trainer = Trainer(
        network,
        args,
        train_dataset=inputs.tokenized(tokenizer, "train"),
        eval_dataset=inputs.tokenized(tokenizer, "validation")
        if "validation" in inputs.data
        else None,
        processing_class=tokenizer,
        compute_metrics=inputs.metrics,
    )
    trainer.run.inputs = inputs.record()
    return trainer


def train_and_save(trainer: Trainer) -> dict[str, float]:
    """Train, save, score the validation rows; run.json says "finished" only after all three."""
    run = trainer.run
    trainer.train()  # says by itself how it ended
    try:
        run.write_status("saving")
        trainer.save_model()
        metrics = trainer.evaluate() if run.eval_dataset is not None else {}
    except BaseException as error:
        run.write_status(status_of(error), error)
        raise
    run.write_status("finished")
    return metrics
