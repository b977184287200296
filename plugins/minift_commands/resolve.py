"""Choosing the rows, their columns, the label, its names, the metrics and the length of texts.

Each choice is made by the first of these that says something: the options; the run that the model
is from (its run.json), if it was of the same task; the task; any other run. What none of them says
is guessed from the data, where its names leave no doubt. Nothing in this file changes a row.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minift.data.dataset import Dataset
from minift.data.loading import load_dataset
from minift.errors import ArgumentError, ConfigError
from minift.files import local_path
from minift.tasks import Task
from minift.tokenizer import LABEL_NAMES
from minift_commands.options import DataOptions, split_words

USUAL_SPLITS = ("train", "validation", "test")  # found whatever word their files use


@dataclass(frozen=True)
class Choices:
    """How rows become a model's inputs. None: nothing is said of it, or nothing is known yet.

    Attributes:
        columns: one column of text, or two.
        label: the column with the labels.
        names: of the classes; [] where a number is predicted.
        metrics: what `evaluate.load` takes.
        max_length: where texts are cut, in tokens.
    """

    columns: list[str] | None = None
    label: str | None = None
    names: list[str] | None = None
    metrics: list[str] | None = None
    max_length: int | None = None

    def completed_by(self, other: "Choices") -> "Choices":
        """Return these choices, and those of `other` where these say nothing."""
        open_ones = [name for name, value in vars(self).items() if value is None]
        return replace(self, **{name: getattr(other, name) for name in open_ones})


@dataclass(frozen=True)
class RunInputs:
    """What run.json records of a run: the options that named its rows, and its choices."""

    source: dict[str, str] = field(default_factory=dict)
    choices: Choices = Choices()

    @classmethod
    def read(cls, folder: str) -> "RunInputs":
        """Read run.json, and warn of a run that did not finish; empty for a model without one."""
        path = local_path(folder) / "run.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if record and record.get("status") != "finished":
            status = record.get("status")
            print(f"note: the run in {folder} is recorded as {status}", file=sys.stderr)
        if not (inputs := record.get("inputs")):
            return cls()
        names, length = inputs["names"] or [], inputs["max_length"]
        chosen = Choices(inputs["columns"], inputs["label"], names, inputs["metric"], length)
        return cls(inputs["source"], chosen)


def resolve(options: DataOptions, run: RunInputs, task: Task | None, rows: Dataset) -> Choices:
    """Make each choice by the first source that says something of it.

    Args:
        options: of the command.
        run: of the run that the model is from, or an empty one.
        task: the one that `options.task` names.
        rows: a split, whose columns are guessed from.

    Returns:
        Choices, whose `names` and `metrics` are None where only the labels can tell, and whose
        `columns` and `label` are None where nothing says which they are.
    """
    of_task = choices_of_task(task, options.label_column) if task else Choices()
    sources = [of_task, run.choices]
    if options.task == run.source.get("task"):  # the run chose among what the task offers
        sources.reverse()
    guess = Choices(label=next((name for name in LABEL_NAMES if name in rows.features), None))
    chosen = choices_of_options(options)
    for source in (*sources, guess):
        chosen = chosen.completed_by(source)
    return chosen.completed_by(Choices(columns=likely_columns(rows, chosen.label)))


def choices_of_options(options: DataOptions) -> Choices:
    lists = (options.text_columns, options.label_names, options.metric)
    columns, names, metrics = (split_words(text) or None for text in lists)
    return Choices(columns, options.label_column or None, names, metrics, options.max_length)


def choices_of_task(task: Task, label_column: str | None) -> Choices:
    """Return what a task says; its names and metrics are those of its own label only."""
    columns = list(task.columns)
    if label_column not in (None, task.label):
        return Choices(columns, task.label)
    return Choices(columns, task.label, list(task.label_names or []), list(task.metrics))


def likely_columns(rows: Dataset, label: str | None = None) -> list[str] | None:
    """Return the text columns, where names leave no doubt or one is beside the label; or None."""
    strings = [n for n, f in rows.features.items() if "string" in getattr(f, "dtype", "")]
    for names in (["sentence1", "sentence2"], ["text"], ["sentence"]):
        if set(names) <= set(rows.features):  # if one of them is no text, check_texts says so
            return names
    others = [name for name in strings if name != label]
    return others if len(others) == 1 else None


def unclear_columns(rows: Dataset) -> ConfigError:
    do = "pass --text-columns NAME, or --text-columns FIRST,SECOND for pairs"
    got = f"columns {', '.join(rows.column_names)}"
    return ConfigError("cannot tell which columns hold the text", got=got, do=do)


# ---------------------------------------------------------------------------------------- the rows


def load_splits(
    options: DataOptions, task: Task | None
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """Load the rows by split.

    Returns:
        {split: rows}, and the options that named them, with absolute paths so that they stay true.

    Raises:
        ArgumentError: no option names data, or two do.
    """
    both = {"train": options.train_file, "validation": options.validation_file}
    files = {split: file for split, file in both.items() if file}
    source = {"task": options.task} if options.task else {}
    if options.dataset and files:
        raise ArgumentError("pass --dataset or --train-file and --validation-file, not both")
    if files:
        data = {split: load_dataset(file, split="train") for split, file in files.items()}
        paths = {f"{split}_file": absolute(file) for split, file in files.items()}
        return data, source | paths
    path = options.dataset or (task.dataset if task else None)
    if not path:
        raise ArgumentError("no data was given", do="pass --dataset FOLDER or --train-file FILE")
    if options.dataset:
        source["dataset"] = absolute(options.dataset)
    if options.dataset_config:
        source["dataset_config"] = options.dataset_config
    config = options.dataset_config or (task.config if task else None)
    if task is None or not task.splits:
        return dict(load_dataset(path, config)), source
    return load_task_splits(path, config, dict(task.splits)), source


def load_task_splits(path: str, config: str | None, splits: dict[str, str]) -> dict[str, Dataset]:
    """Load the splits that a task names, {split: split or "configuration:split" there}.

    A local folder without one for the task's configuration holds the splits' files themselves.
    """
    local = local_path(path)
    if local.exists() and not (config and (local / config).is_dir()):
        splits = {split: theirs.rpartition(":")[2] for split, theirs in splits.items()}
        return load_named_files(local, splits) or renamed(dict(load_dataset(path)), splits)
    by_config: dict[str | None, dict[str, str]] = {}
    for split, theirs in splits.items():
        other, _, theirs = theirs.rpartition(":")
        by_config.setdefault(other or config, {})[split] = theirs
    data: dict[str, Dataset] = {}
    for name, some in by_config.items():
        data |= load_named_files(local / (name or ""), some) or zip(
            some, load_dataset(path, name, split=list(some.values())), strict=True
        )
    return {split: data[split] for split in splits if split in data}


def load_named_files(folder: Path, splits: dict[str, str]) -> dict[str, Dataset]:
    """Load a folder's files by their splits' full names; {} where the usual words say enough.

    MNLI has two validation splits, whose files (validation_matched-..., GLUE's own dev_matched.tsv)
    would else be taken for shards of one. Quotes in GLUE's own files are plain characters.
    """
    files = {
        split: sorted(
            path.name
            for name in {theirs, theirs.replace("validation", "dev")}
            for path in folder.glob(f"{name}[-.]*")
        )
        for split, theirs in splits.items()
    }
    if not any(files[split] for split, theirs in splits.items() if theirs not in USUAL_SPLITS):
        return {}
    files = {split: names for split, names in files.items() if names}
    from_glue = any(Path(name).match("dev_*.tsv") for names in files.values() for name in names)
    options: dict[str, Any] = {"quotes": False} if from_glue else {}
    return dict(load_dataset(str(folder), data_files=files, **options))


def renamed(data: dict[str, Dataset], splits: dict[str, str]) -> dict[str, Dataset]:
    """Add splits under the task's names, where the data set's own names are others."""
    other = {split: theirs for split, theirs in splits.items() if theirs not in USUAL_SPLITS}
    return data | {split: data[theirs] for split, theirs in other.items() if theirs in data}


def absolute(name: str) -> str:
    path = local_path(name)
    return str(path.resolve()) if path.exists() else name
