"""The flags of `train` and `eval`, and the TOML file that may hold those of `train`."""

import argparse
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from minift.errors import ConfigError, MissingFileError, nearest
from minift.training.arguments import TrainingArguments


def option(text: str) -> Any:
    return field(default=None, metadata={"help": text})


@dataclass(frozen=True)
class DataOptions:
    """The data that a command is about; None where an option was not given."""

    dataset: str | None = option("folder (or name) with train, validation and test files")
    dataset_config: str | None = option("which one, of a data set that has several")
    train_file: str | None = option("csv, tsv, json, jsonl or parquet")
    validation_file: str | None = option("the same, for evaluation")
    task: str | None = option("a known one: its data, columns, names and metric")
    text_columns: str | None = option("one column of text, or two: a,b")
    label_column: str | None = option("the column with the labels")
    label_names: str | None = option("names of classes 0, 1, ...; string labels use them")
    metric: str | None = option("metrics to compute (default: accuracy,f1 for 2 classes)")
    max_length: int | None = option("truncate to this many tokens")

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "DataOptions":
        """Take them from a command's arguments, which may lack some and have others."""
        return cls(**{f.name: getattr(args, f.name, None) for f in fields(cls)})


def split_words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def add_options(parser: argparse.ArgumentParser, title: str, options: type) -> None:
    """Make a flag of each field of a dataclass; None means that it was not given."""
    group = parser.add_argument_group(title)
    for each in fields(options):
        flag = "--" + each.name.replace("_", "-")
        text = each.metadata["help"].replace("%", "%%")
        if each.default is not None:
            text += f" (default: {each.default})"
        group.add_argument(flag, type=parse_value(each), default=None, metavar="VALUE", help=text)


def parse_value(field: Any) -> Any:
    """Return a function that reads a flag's text as the field's type."""
    name = getattr(field.type, "__name__", str(field.type))

    def parse(text: str) -> Any:
        if field.name == "logging_steps":  # the one that takes a word or a number
            return text if text == "auto" else float(text)
        if field.name == "lr_scheduler_kwargs":
            pairs = (pair.split("=") for pair in text.split(","))
            return {key.strip(): float(value) for key, value in pairs}
        if "bool" in name:
            if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
            return text.lower() in ("true", "1", "yes")
        if "int" in name:
            return int(text)
        if "float" in name:
            return float(text)
        return text

    parse.__name__ = name
    return parse


def apply_config(args: argparse.Namespace) -> None:
    """Take from the TOML file what the command line does not say."""
    if not args.config:
        return
    path = Path(args.config)
    if not path.is_file():
        raise MissingFileError(f"there is no config file {path}")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    options = (*fields(DataOptions), *fields(TrainingArguments))
    known = {"model": str} | {each.name: parse_value(each) for each in options}
    for name, value in settings.items():
        key = name.replace("-", "_")
        if key not in known:
            raise ConfigError(f"{path}: unknown option {name!r}", expected=nearest(key, known))
        if getattr(args, key) is not None:  # the command line has the last word
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            setattr(args, key, known[key](text))
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ConfigError(f"{path}: {name} does not fit: {error}", got=value) from None
