"""From files to the inputs of a model, to a Trainer: what this plugin's commands and others share.

Which columns hold text and which the label is taken from the options, from a task that a plugin
knows, from a finished run's run.json (first, if the run was of this task), or from names that leave
no doubt, in this order. A task also says where its rows are, and how they become texts or pairs if
they are none. Labels become class numbers in the column `labels`, or float32 where a number is to
be predicted; texts become token ids by a cached map.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from minift.data.dataset import Dataset
from minift.data.features import ClassLabel, Value
from minift.data.loading import load_dataset
from minift.errors import ArgumentError, ConfigError, DataError
from minift.evaluate import find_metric
from minift.models.auto import AutoConfig, AutoModelForSequenceClassification
from minift.tokenizer import AutoTokenizer
from minift.training import evaluation
from minift.training.arguments import TrainingArguments
from minift.training.evaluation import EvalLoopOutput, EvalPrediction, named_metrics
from minift.training.run import status_of
from minift.training.trainer import Trainer
from minift_commands.tasks import find_task

OPTIONS = (
    *("dataset", "dataset_config", "train_file", "validation_file", "task"),
    *("text_columns", "label_column", "label_names", "metric", "max_length"),
)
# Of the rows held out for validation: one number for all runs, whose scores can then be compared.
HELD_OUT_SEED = 42
USUAL = ("train", "validation", "test")  # splits that are found whatever word their files use


@dataclasses.dataclass
class Inputs:
    """Which rows, and how they become the model's inputs; run.json keeps it for `eval`."""

    data: dict[str, Dataset]  # by split; not recorded
    source: dict[str, str]  # the options that named the data
    text_columns: list[str]
    label_column: str | None
    names: list[str]  # of the classes; none where a number is predicted
    metrics: list[str]
    max_length: int | None
    held_out: float | None = None  # the share of the training rows that are for validation
    answers: Callable[[Any], Any] | None = None  # of a task scored by groups; not recorded

    @classmethod
    def from_args(cls, args: argparse.Namespace, known: dict[str, Any] | None = None) -> "Inputs":
        """From the options; what they leave open, from the task, a finished run, or the data."""
        args = argparse.Namespace(**{**dict.fromkeys(OPTIONS), **vars(args)})
        known = known_inputs(args, known or {})
        data, source = load_splits(args, known)
        for split, dataset in data.items():
            if not len(dataset):
                raise DataError(f"the {split} data has no rows", got=source)
        if "prepare" in known:
            data = {split: known["prepare"](dataset) for split, dataset in data.items()}
        first = next(iter(data.values()))
        texts = split_words(args.text_columns) or known.get("columns") or guess_texts(first)
        label = args.label_column or known.get("label") or guess_label(first)
        for split, dataset in data.items():
            check_texts(dataset, texts, label, split)
        names = split_words(args.label_names) or known.get("names", [])
        data = {split: labelled(ds, label, names, split) for split, ds in data.items()}
        if args.task:
            data = {split: without_hidden(dataset, split) for split, dataset in data.items()}
        names = infer_names(data, label) if names == [] else names
        check_names(data, names or [])
        held_out = known.get("held_out") if "train" in data and "validation" not in data else None
        if held_out:
            data = hold_out(data, held_out, names)
        metrics = split_words(args.metric) or known.get("metric") or default_metrics(names)
        metrics = [metrics] if isinstance(metrics, str) else metrics
        answers = [0.0, 1.0] if names is None else list(range(len(names)))
        task = find_task(args.task) if args.task else {}
        own = task.get("metric") in (metrics, metrics[0])  # answers are for the task's metric
        groups = known.get("answers") if own else None
        for name in metrics if groups is None else ():
            check_metric(name, answers)
        length = known.get("max_length") if args.max_length is None else args.max_length
        rest = (metrics, length, held_out, groups)
        return cls(data, source, texts, label, names or [], *rest)

    def record(self) -> dict[str, Any]:
        said = f"{self.held_out} of train, in like shares of classes, seed {HELD_OUT_SEED}"
        return {
            "source": self.source,
            "columns": self.text_columns,
            "label": self.label_column,
            "names": self.names or None,
            "metric": self.metrics,
            "max_length": self.max_length,
            "validation": said if self.held_out else None,
        }

    def answers_of(self, split: str) -> Callable[[EvalPrediction], Any]:
        """What the metrics compare, row by row; or as the task says, which sees all columns."""
        if (groups := self.answers) is None:
            return evaluation.answers
        rows = self.data.get(split)
        return lambda prediction: groups(dataclasses.replace(prediction, rows=rows))

    def rows(self, split: str) -> Dataset:
        if split not in self.data:
            raise ConfigError(
                f"there is no split {split!r}",
                expected=", ".join(self.data),
                do="pass --train-file" if split == "train" else "pass one of these as --split",
            )
        return self.data[split]

    def tokenized(self, tokenizer: Any, split: str) -> Dataset:
        """The split's rows with the model's inputs beside their own columns."""
        return self.rows(split).map(
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


def inputs_for(folder: str, args: argparse.Namespace) -> Inputs:
    """What a trained model is scored on: its own rows, unless the options say others.

    Raises:
        ConfigError: the rows are of other classes than the model's, or in another order.
    """
    config, known = AutoConfig.from_pretrained(folder), run_record(folder)
    source = known.get("source", {})
    said = {**dict.fromkeys(OPTIONS), **vars(args)}
    said["task"] = said["task"] or source.get("task")
    elsewhere = said["dataset"] or said["train_file"] or said["validation_file"]
    if not elsewhere and said["task"] == source.get("task"):
        said |= source
    names = list(config.id2label.values())
    if config.problem_type == "regression" or len(names) == 1:
        names = []
    known.setdefault("names", names or None)
    inputs = Inputs.from_args(argparse.Namespace(**said), known)
    unnamed = names == default_names(len(inputs.names))
    if [n.casefold() for n in inputs.names] != [n.casefold() for n in names] and not unnamed:
        raise ConfigError(
            "the rows have other classes than the model, or another order of them",
            got=", ".join(inputs.names) or "a number",
            expected=", ".join(names) or "a number",
            do="if the names mean the same, in this order, rename those in the model's config.json",
        )
    return inputs


def known_inputs(args: argparse.Namespace, run: dict[str, Any]) -> dict[str, Any]:
    """What the task and a finished run's record say; of its own task the run knows best."""
    if args.task is None:
        return run
    task = find_task(args.task)
    if args.label_column not in (None, task["label"]):
        other = ("names", "metric", "answers")  # are those of the label that the task is about
        task = {name: value for name, value in task.items() if name not in other}
    return task | run if args.task == run.get("source", {}).get("task") else run | task


def load_splits(
    args: argparse.Namespace, task: dict[str, Any]
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The splits, and the options that named them, with whole paths so that they stay true."""
    files = {"train": args.train_file, "validation": args.validation_file}
    files = {split: file for split, file in files.items() if file}
    where = args.dataset or task.get("dataset")
    named = {"task": args.task} if args.task else {}
    if args.dataset and files:
        raise ArgumentError("pass --dataset or --train-file and --validation-file, not both")
    if files:
        data = {split: load_dataset(file, split="train") for split, file in files.items()}
        return data, named | {f"{split}_file": whole_path(file) for split, file in files.items()}
    if not where:
        raise ArgumentError("no data was given", do="pass --dataset FOLDER or --train-file FILE")
    said = {"dataset": whole_path(args.dataset)} if args.dataset else {}
    if args.dataset_config:
        said, task = said | {"dataset_config": args.dataset_config}, {**task}
        task["config"] = args.dataset_config
    return load_task(where, task), named | said


def load_task(where: str, task: dict[str, Any]) -> dict[str, Dataset]:
    """The splits that a task names, or all of a data set that no task is about.

    A local folder without one for the task's configuration holds the splits' files themselves.
    """
    local, config = Path(where).expanduser(), task.get("config")
    if "splits" not in task:
        return dict(load_dataset(where, config))
    if local.exists() and not (config and (local / config).is_dir()):
        splits = {split: said.rpartition(":")[2] for split, said in task["splits"].items()}
        return load_named(local, splits) or renamed(dict(load_dataset(where)), splits)
    parts: dict[str | None, dict[str, str]] = {}
    for split, said in task["splits"].items():
        other, _, theirs = said.rpartition(":")
        parts.setdefault(other or config, {})[split] = theirs
    data: dict[str, Dataset] = {}
    for name, splits in parts.items():
        data |= load_named(local / (name or ""), splits) or zip(
            splits, load_dataset(where, name, split=list(splits.values())), strict=True
        )
    return {split: data[split] for split in task["splits"] if split in data}


def load_named(folder: Path, splits: dict[str, str]) -> dict[str, Dataset]:
    """The files of a folder by their splits' whole names; {} where the usual words say enough.

    MNLI has two validation splits, whose files (validation_matched-..., GLUE's own dev_matched.tsv)
    would else be taken for parts of one. Quotes in GLUE's own files are plain characters.
    """
    files = {
        split: sorted(
            path.name
            for name in {theirs, theirs.replace("validation", "dev")}
            for path in folder.glob(f"{name}[-.]*")
        )
        for split, theirs in splits.items()
    }
    if not any(files[split] for split, theirs in splits.items() if theirs not in USUAL):
        return {}
    there = {split: names for split, names in files.items() if names}
    own = any(Path(name).match("dev_*.tsv") for names in files.values() for name in names)
    options: dict[str, Any] = {"quotes": False} if own else {}
    return dict(load_dataset(str(folder), data_files=there, **options))


def renamed(data: dict[str, Dataset], splits: dict[str, str]) -> dict[str, Dataset]:
    """Splits by the task's names for them too, where the data set's own names are others."""
    other = {split: theirs for split, theirs in splits.items() if theirs not in USUAL}
    return data | {split: data[theirs] for split, theirs in other.items() if theirs in data}


def hold_out(data: dict[str, Dataset], share: float, names: Any) -> dict[str, Dataset]:
    """Validation rows from the training rows, each class in like shares."""
    rows = data["train"].cast_column("labels", ClassLabel(names=names))
    parts = rows.train_test_split(share, stratify_by_column="labels", seed=HELD_OUT_SEED)
    said = f"{len(parts['test'])} of {len(rows)} training rows are held out for validation"
    print(said, file=sys.stderr)
    return {**data, "train": parts["train"], "validation": parts["test"]}


def without_hidden(dataset: Dataset, split: str) -> Dataset:
    """The dataset without its labels if they are all -1, as a benchmark's test labels are.

    Raises:
        DataError: some of its labels are, or any where there is training.
    """
    if "labels" not in dataset.features:
        return dataset
    labels = dataset.to_arrow(columns=["labels"]).column("labels")
    hidden = pc.sum(pc.equal(labels, -1)).as_py() or 0
    if hidden and (split == "train" or hidden < len(dataset)):
        raise DataError(
            f"the {split} data has rows without a label",
            got=f"{hidden} of {len(dataset)} are labelled -1",
            do="filter them out",
        )
    return dataset.remove_columns("labels") if hidden else dataset


def whole_path(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def check_metric(name: str, answers: list[Any]) -> None:
    """One that does not fit the classes, or gives no number, fails before training."""
    try:
        found = find_metric(name)(answers, answers)
    except DataError as error:  # its own advice is for Python
        do = "pass --metric with one that fits, such as accuracy or matthews_correlation"
        raise ConfigError(error.what, got=error.got, do=do) from None
    if other := [key for key, value in found.items() if not isinstance(value, float)]:
        do = f"compute it from predictions: evaluate.load({name!r})"
        raise ConfigError(f"the metric {name} is more than a number: {', '.join(other)}", do=do)


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
        values = dataset.to_arrow(columns=[name]).column(name)
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
        default = default_names(len(names))
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


def labelled(dataset: Dataset, label: str | None, names: list[str] | None, split: str) -> Dataset:
    """The dataset with its labels as numbers in the column `labels`, if it has them."""
    if label is None or label not in dataset.features:
        if split == "train":
            dataset.check_columns([label or "label"])
        return dataset
    feature = dataset.features[label]
    if names is not None and getattr(feature, "dtype", "") == "string":
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
    dataset = dataset if label == "labels" else dataset.rename_column(label, "labels")
    return dataset.cast_column("labels", Value("float32")) if names is None else dataset


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
    return default_names(max(len(values), 2))


def default_names(count: int) -> list[str]:
    """Of classes that nobody named."""
    return [f"LABEL_{i}" for i in range(count)]


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
    kind: dict[str, Any] = {"id2label": dict(enumerate(inputs.names))}
    if not inputs.names:
        kind = {"num_labels": 1, "problem_type": "regression"}
    network = AutoModelForSequenceClassification.from_pretrained(model, seed=args.seed, **kind)
    trainer = Trainer(
        network,
        args,
        train_dataset=inputs.tokenized(tokenizer, "train"),
        eval_dataset=inputs.tokenized(tokenizer, "validation")
        if "validation" in inputs.data
        else None,
        processing_class=tokenizer,
        compute_metrics=named_metrics(inputs.metrics, inputs.answers_of("validation")),
    )
    trainer.run.inputs = inputs.record()
    return trainer


def predicted(
    folder: str, inputs: Inputs, split: str | None, device: str, batch_size: int = 32
) -> tuple[str, EvalLoopOutput]:
    """The split, by default the validation rows, and what a trained model says of it.

    Raises:
        DataError: its rows have no labels to compare with.
    """
    split = split or ("validation" if "validation" in inputs.data else next(iter(inputs.data)))
    print(f"scoring the split {split}", file=sys.stderr)
    settings = TrainingArguments(
        None, device=device, per_device_eval_batch_size=batch_size, precision="fp32",
        disable_tqdm=True,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    scores = named_metrics(inputs.metrics, inputs.answers_of(split))
    trainer = Trainer(model, settings, processing_class=tokenizer, compute_metrics=scores)
    output = trainer.predict(inputs.tokenized(tokenizer, split), split)
    if output.label_ids is None or not (output.label_ids != -100).any():
        raise DataError(f"the split {split!r} has no labels to compare with")
    return split, output


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
