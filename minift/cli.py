"""`minift train | eval | predict | plugins`, and the commands that plugins add.

Errors that a user can cause are printed in three lines and end with exit code 2; `--debug` shows
the traceback. Nothing here imports torch before a command needs it.
"""

import argparse
import dataclasses
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minift import __version__, hookspecs, plugins
from minift.device import describe
from minift.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    MiniftError,
    MissingFileError,
    nearest,
)
from minift.training.arguments import TrainingArguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        words = choose_plugins([word for word in words if word != "--debug"])
        args = build_parser().parse_args(words)
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("minift: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough: `minift plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MiniftError, OSError) as error:
        if debug:
            raise
        print(f"minift: {error}", file=sys.stderr)
        return 2


def choose_plugins(words: list[str]) -> list[str]:
    """Load the plugins that -p and --plugin choose, wherever they stand; the other words."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("-p", dest="select", action="append", default=None)
    common.add_argument("--plugin", action="append", default=[])
    chosen, rest = common.parse_known_args(words)
    select = chosen.select if chosen.select is not None else plugins.words_from_environment()
    plugins.set_default_manager(plugins.build_manager(select, chosen.plugin))
    return rest


def build_parser() -> argparse.ArgumentParser:
    """The parser; the chosen plugins add commands to it."""
    manager = plugins.default_manager()
    parser = argparse.ArgumentParser(
        prog="minift", description="Fine-tune pretrained encoders.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"minift {__version__}")
    parser.add_argument("-p", action="append", metavar="no:NAME", help="leave a plugin out")
    parser.add_argument("--plugin", action="append", metavar="FILE", help="load a plugin's file")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_train(commands)
    add_eval(commands)
    add_predict(commands)
    add_plugins(commands)
    for name, found in plugins.registry(manager, "minift_commands").items():
        sub = commands.add_parser(name, help=found.value.help, description=found.value.help)
        found.value.configure(sub)
        sub.set_defaults(run=found.value.run)
    return parser


# ------------------------------------------------------------------------------------------- train


def add_train(commands: Any) -> None:
    text = "fine-tune a model on labelled texts or pairs"
    parser = commands.add_parser("train", help=text, description=text, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="a TOML file with any of these options")
    parser.add_argument(
        "--model", help="folder with config.json, model.safetensors, tokenizer.json"
    )
    add_data_options(parser)
    group = parser.add_argument_group("training arguments")
    for field in dataclasses.fields(TrainingArguments):
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"].replace("%", "%%")
        if field.default is not None:
            text += f" (default: {field.default})"
        group.add_argument(flag, type=parse_value(field), default=None, metavar="VALUE", help=text)
    parser.set_defaults(run=train)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", help="folder (or name) with train, validation and test files")
    group.add_argument("--train-file", help="csv, tsv, json, jsonl or parquet")
    group.add_argument("--validation-file", help="the same, for evaluation")
    group.add_argument("--task", help="a task that a plugin knows: its columns, names and metric")
    group.add_argument("--text-columns", help="one column of text, or two: a,b")
    group.add_argument("--label-column", help="the column with the labels")
    group.add_argument("--label-names", help="names of classes 0, 1, ...; string labels use them")
    group.add_argument("--metric", help="metrics to compute (default: accuracy,f1 for 2 classes)")
    group.add_argument("--max-length", type=int, help="truncate to this many tokens")


def parse_value(field: Any) -> Any:
    """A flag's text as the field's type."""
    kind = getattr(field.type, "__name__", str(field.type))

    def parse(text: str) -> Any:
        if field.name == "logging_steps":  # the one that takes a word or a number
            return text if text == "auto" else float(text)
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


def train(args: argparse.Namespace) -> int:
    """Load, tokenize, train, evaluate, save."""
    from minift.inputs import Inputs, build_trainer, train_and_save

    apply_config(args)
    if not args.model:
        raise ArgumentError("minift train needs --model", do="pass a folder with a model")
    settings = {f.name: getattr(args, f.name) for f in dataclasses.fields(TrainingArguments)}
    settings = {name: value for name, value in settings.items() if value is not None}
    training_args = TrainingArguments(**settings)
    inputs = Inputs.from_args(args)
    trainer = build_trainer(args.model, inputs, training_args)
    metrics = train_and_save(trainer)
    times = ("epoch", "runtime", "per_second")
    shown = [name for name in metrics if not name.endswith(times)]
    if shown:
        print("  ".join(f"{name} {metrics[name]:.4f}" for name in shown))
    elif metrics:
        print("the validation data has no labels, so nothing is scored")
    print(f"saved to {trainer.args.output_dir}")
    return 0


# ------------------------------------------------------------------------------- eval and predict


def add_eval(commands: Any) -> None:
    text = "loss and metrics of a trained model on labelled rows"
    parser = commands.add_parser("eval", help=text, description=text, allow_abbrev=False)
    parser.add_argument("model", help="run folder, or any folder with a trained classifier")
    add_data_options(parser)
    parser.add_argument("--split", help="which rows (default: validation)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.set_defaults(run=evaluate)


def run_record(folder: str) -> dict[str, Any]:
    """What run.json says of the inputs; {} for a model that came without."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        return {}
    said = json.loads(path.read_text())
    if said.get("status") != "finished":
        print(f"note: the run in {folder} is recorded as {said.get('status')}", file=sys.stderr)
    return said.get("inputs") or {}


def evaluate(args: argparse.Namespace) -> int:
    from minift.inputs import Inputs, split_words
    from minift.models.auto import AutoConfig, AutoModelForSequenceClassification
    from minift.tokenizer import AutoTokenizer
    from minift.training.trainer import Trainer

    known = run_record(args.model)
    if not (args.dataset or args.train_file or args.validation_file):
        vars(args).update(known.get("source", {}))  # the data that it was trained with
    config = AutoConfig.from_pretrained(args.model)
    names = list(config.id2label.values())
    known.setdefault("names", names)
    if args.label_names and split_words(args.label_names) != names:
        raise ConfigError(
            "--label-names are not the names of the model's classes",
            got=args.label_names,
            expected=",".join(names),
        )
    inputs = Inputs.from_args(args, known)
    split = args.split or ("validation" if "validation" in inputs.data else next(iter(inputs.data)))
    print(f"scoring the split {split}", file=sys.stderr)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(args.model),
        TrainingArguments(
            args.model, device=args.device, per_device_eval_batch_size=args.batch_size,
            precision="fp32", disable_tqdm=True,
        ),
        processing_class=tokenizer,
        compute_metrics=inputs.metrics,
    )  # fmt: skip
    metrics = trainer.predict(inputs.tokenized(tokenizer, split), split).metrics
    if f"{split}_loss" not in metrics:
        raise DataError(f"the split {split!r} has no labels to compare with")
    print(json.dumps(metrics, indent=2))
    return 0


def add_predict(commands: Any) -> None:
    text = "labels and probabilities for a text, a pair, or the rows of a file"
    parser = commands.add_parser("predict", help=text, description=text, allow_abbrev=False)
    parser.add_argument("model", help="run folder, or any folder with a trained classifier")
    parser.add_argument("text", nargs="*", help="one text, or the two texts of a pair")
    parser.add_argument("--file", help="csv, tsv, json, jsonl or parquet; prints a JSON line a row")
    parser.add_argument("--text-columns", help="one column of text, or two: a,b")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(run=predict)


def predict(args: argparse.Namespace) -> int:
    from minift.data.loading import load_dataset
    from minift.inputs import guess_texts, split_words
    from minift.pipeline import pipeline

    if bool(args.text) == bool(args.file) or len(args.text) > 2:
        raise ArgumentError("give one text, two texts (a pair), or --file FILE")
    columns = split_words(args.text_columns) or run_record(args.model).get("columns")
    rows: Any
    if args.file:
        dataset = load_dataset(args.file, split="train")
        columns = columns or guess_texts(dataset)
        dataset.check_columns(columns)
        values = dataset.select_columns(columns).to_dict()
        keys = ("text", "text_pair")[: len(columns)]
        rows = [dict(zip(keys, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        if columns and len(columns) != len(args.text):
            raise ArgumentError(
                "this model was trained on " + ("pairs" if len(columns) == 2 else "single texts"),
                got=f"{len(args.text)} text(s)",
                expected=", ".join(columns),
            )
        rows = [dict(zip(("text", "text_pair"), args.text, strict=False))]
    classify: Any = pipeline("text-classification", args.model, device=args.device)
    for labels in classify(rows, top_k=None):
        scores = {found["label"]: round(found["score"], 4) for found in labels}
        if args.file:
            print(json.dumps({"label": labels[0]["label"], "scores": scores}))
        else:
            print("\n".join(f"{score:.4f}  {label}" for label, score in scores.items()))
    return 0


# ----------------------------------------------------------------------------------------- plugins


def add_plugins(commands: Any) -> None:
    text = "what is installed, and where it listens"
    parser = commands.add_parser("plugins", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--loop", action="store_true", help="the run, with who listens where")
    parser.set_defaults(run=list_plugins)


def list_plugins(args: argparse.Namespace) -> int:
    manager = plugins.default_manager()
    if args.loop:
        print(loop_outline(manager))
        return 0
    devices = plugins.registry(manager, "minift_devices")
    listed: list[dict[str, Any]] = []
    for name, plugin in manager.list_name_plugin():
        hooks = sorted(c.name for c in manager.get_hookcallers(plugin) or ()) if plugin else []
        mine = [(key, found.value) for key, found in devices.items() if found.plugin == name]
        entry: dict[str, Any] = {
            "name": name,
            "version": manager.versions.get(name, ""),
            "hooks": hooks,
        }
        listed.append({**entry, "devices": describe(mine), "error": None})
        if plugin is None:
            listed[-1]["error"] = "left out with -p"
    for name, error in manager.failures.items():
        said = f"{type(error).__name__}: {error}"
        listed.append({"name": name, "version": "", "hooks": [], "devices": [], "error": said})
    if args.json:
        print(json.dumps(listed, indent=2))
        return 0
    for entry in listed:
        print(f"{entry['name']} {entry['version']}".rstrip())
        if entry["error"]:
            print(f"  not loaded: {entry['error']}")
        for hook in entry["hooks"]:
            print(f"  {hook}")
        for device in entry["devices"]:
            print(f"  device {device['name']}: {device['unavailable'] or 'available'}")
    return 0


def loop_outline(manager: plugins.Manager) -> str:
    """The outline at the top of hookspecs.py, each hook with the plugins that implement it."""
    doc = (hookspecs.__doc__ or "").split("\n\n")[1]
    lines = []
    for line in doc.splitlines():
        hook = next((word for word in line.split() if word.startswith("minift_")), None)
        if hook is not None:
            impls = getattr(manager.hook, hook).get_hookimpls()
            line += f"  <- {', '.join(impl.plugin_name for impl in impls) or 'nobody'}"
        lines.append(line)
    return "\n".join(lines)
