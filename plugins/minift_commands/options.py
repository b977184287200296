"""The flags of `train` and `eval`, and the TOML file that may hold those of `train`."""

import argparse
import contextlib
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Any

from minift.errors import ConfigError, MiniftError, MissingFileError, nearest
from minift.files import local_path
from minift.settings import checked, types_of
from minift.training.arguments import TrainingArguments

SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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
    label_names: str | None = option("names of classes 0, 1, ... (text labels: in their order)")
    metric: str | None = option("metrics to compute (default: accuracy and F1)")
    max_length: int | None = option("truncate to this many tokens")

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "DataOptions":
        """Take them from a command's arguments, which may lack some and have others."""
        return cls(**{f.name: getattr(args, f.name, None) for f in fields(cls)})


def split_words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def add_options(parser: argparse.ArgumentParser, title: str, options: type) -> None:
    """Make a flag of each field of a dataclass; what is not given is missing from the result."""
    group = parser.add_argument_group(title)
    for each in fields(options):
        flag = "--" + each.name.replace("_", "-")
        text = each.metadata["help"].replace("%", "%%")
        values, default = each.metadata.get("range"), each.default
        more = [values.expected] if values else []
        more += [] if default is None else [f"default: {default}"]
        text += f" ({'; '.join(more)})" if more else ""
        parse, absent = value_parser(each), argparse.SUPPRESS
        group.add_argument(flag, type=parse, default=absent, metavar="VALUE", help=text)


def value_parser(option: Any) -> Callable[[str], Any]:
    """Return a function that reads the text of a flag as a value of a field, and checks it."""

    types, values = types_of(option.type), option.metadata.get("range")

    def parse(text: str) -> Any:
        try:
            return checked(option.name, read_as(types, text), types, values)
        except MiniftError as error:
            raise argparse.ArgumentTypeError(error.what) from None

    return parse


def read_as(types: Collection[type], text: str) -> Any:
    """Read text as one of the types; it stays text where it is none of them."""
    if str not in types and type(None) in types and text.lower() == "none":
        return None
    if bool in types and str not in types:
        return SWITCHES.get(text.lower(), text)
    if dict in types:
        pairs = (pair.partition("=") for pair in text.split(","))
        return {key.strip(): read_as([float], value) for key, _, value in pairs}
    for number in (int, float) if {int, float} & set(types) else ():
        with contextlib.suppress(ValueError):
            return number(text)
    return text


def apply_config(args: argparse.Namespace) -> None:
    """Take from the TOML file what the command line does not say."""
    if not args.config:
        return
    path = local_path(args.config)
    if not path.is_file():
        raise MissingFileError(f"there is no config file {path}")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    options = (*fields(DataOptions), *fields(TrainingArguments))
    known = {"model": str} | {each.name: value_parser(each) for each in options}
    for name, value in settings.items():
        key = name.replace("-", "_")
        if key not in known:
            raise ConfigError(f"{path}: unknown option {name!r}", expected=nearest(key, known))
        if getattr(args, key, None) is not None:  # the command line has the last word
            continue
        if isinstance(value, dict):
            value = [f"{key}={number}" for key, number in value.items()]
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            setattr(args, key, known[key](text))
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ConfigError(f"{path}: {name} does not fit: {error}", got=value) from None
