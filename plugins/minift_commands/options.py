"""The flags of `train` and `eval`, and the TOML file that may hold those of `train`."""

import argparse
import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from minift.errors import ConfigError, MissingFileError, nearest
from minift.training.arguments import TrainingArguments


def add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", help="folder (or name) with train, validation and test files")
    group.add_argument("--dataset-config", help="which one, of a data set that has several")
    group.add_argument("--train-file", help="csv, tsv, json, jsonl or parquet")
    group.add_argument("--validation-file", help="the same, for evaluation")
    group.add_argument("--task", help="a known one: its data, columns, names and metric")
    group.add_argument("--text-columns", help="one column of text, or two: a,b")
    group.add_argument("--label-column", help="the column with the labels")
    group.add_argument("--label-names", help="names of classes 0, 1, ...; string labels use them")
    group.add_argument("--metric", help="metrics to compute (default: accuracy,f1 for 2 classes)")
    group.add_argument("--max-length", type=int, help="truncate to this many tokens")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Every field of TrainingArguments is a flag; None means that it was not given."""
    group = parser.add_argument_group("training arguments")
    for field in dataclasses.fields(TrainingArguments):
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"].replace("%", "%%")
        if field.default is not None:
            text += f" (default: {field.default})"
        group.add_argument(flag, type=parse_value(field), default=None, metavar="VALUE", help=text)


def parse_value(field: Any) -> Any:
    """A flag's text as the field's type."""
    kind = getattr(field.type, "__name__", str(field.type))

    def parse(text: str) -> Any:
        if field.name == "logging_steps":  # the one that takes a word or a number
            return text if text == "auto" else float(text)
        if field.name == "lr_scheduler_kwargs":
            pairs = (pair.split("=") for pair in text.split(","))
            return {name.strip(): float(value) for name, value in pairs}
        if "bool" in kind:
            if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
            return text.lower() in ("true", "1", "yes")
        if "int" in kind:
            return int(text)
        if "float" in kind:
            return float(text)
        return text

    parse.__name__ = kind
    return parse


def apply_config(args: argparse.Namespace) -> None:
    """Fill what the command line left open from the TOML file."""
    if not args.config:
        return
    path = Path(args.config)
    if not path.is_file():
        raise MissingFileError(f"there is no config file {path}")
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    other = ("run", "command", "config", "p", "plugin", "debug")
    known = [name for name in vars(args) if name not in other]
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    for name, value in said.items():
        key = name.replace("-", "_")
        if key not in known:
            raise ConfigError(f"{path}: unknown option {name!r}", expected=nearest(key, known))
        if getattr(args, key) is not None:  # the command line has the last word
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            parsed = parse_value(fields[key])(text) if key in fields else text
            setattr(args, key, int(text) if key == "max_length" else parsed)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ConfigError(f"{path}: {name} does not fit: {error}", got=value) from None
