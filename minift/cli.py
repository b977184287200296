"""`minift train | eval | predict | plugins`, and the commands that plugins add.

Errors that a user can cause are printed in three lines and end with exit code 2; `--debug` shows
the traceback. Nothing here imports torch before a command needs it.
"""

import argparse
import dataclasses
import json
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
        parser = build_parser(words)
        args = parser.parse_args([word for word in words if word != "--debug"])
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        print("minift: interrupted", file=sys.stderr)
        return 130
    except MiniftError as error:
        if debug:
            raise
        print(f"minift: {error}", file=sys.stderr)
        return 2


def build_parser(words: list[str]) -> argparse.ArgumentParser:
    """The parser; plugins are chosen first, because they add commands to it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-p", dest="select", action="append", default=None, metavar="no:NAME")
    common.add_argument("--plugin", action="append", default=[], metavar="FILE")
    chosen, _ = common.parse_known_args([w for w in words if w not in ("-h", "--help")])
    select = chosen.select if chosen.select is not None else plugins.words_from_environment()
    manager = plugins.build_manager(select, chosen.plugin)
    plugins.set_default_manager(manager)

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
    kind = str(field.type)

    def parse(text: str) -> Any:
        if "bool" in kind:
            if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
            return text.lower() in ("true", "1", "yes")
        if "int" in kind:
            return int(text)
        if "float" in kind:
            return float(text)
        if field.name == "logging_steps" and text != "auto":
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
    known = [name for name in vars(args) if name not in ("run", "command", "config")]
    for name, value in said.items():
        key = name.replace("-", "_")
        if key not in known:
            raise ConfigError(f"{path}: unknown option {name!r}", expected=nearest(key, known))
        if getattr(args, key) is None:
            setattr(args, key, ",".join(value) if isinstance(value, list) else value)


def train(args: argparse.Namespace) -> int:
    """Load, tokenize, train, evaluate, save."""
    apply_config(args)
    if not args.model:
        raise ArgumentError("minift train needs --model", do="pass a folder with a model")
    settings = {f.name: getattr(args, f.name) for f in dataclasses.fields(TrainingArguments)}
    settings = {name: value for name, value in settings.items() if value is not None}
    training_args = TrainingArguments(**settings)
    inputs = Inputs.from_args(args)
    trainer = build_trainer(args.model, inputs, training_args)
    trainer.train()
    if trainer.run.eval_dataset is not None:
        metrics = trainer.evaluate()
        shown = [k for k in metrics if k.count("_") == 1 and k != "eval_runtime"]
        print("  ".join(f"{name} {metrics[name]:.4f}" for name in shown))
    trainer.save_model()
    trainer.run.write_status("finished")
    print(f"saved to {trainer.args.output_dir}")
    return 0


@dataclasses.dataclass
class Inputs:
    """Which rows, and how they become the model's inputs; run.json keeps it for `eval`."""

    data: dict[str, Any]  # {split: Dataset}; not recorded
    source: str
    text_columns: list[str]
    label_column: str | None
    names: list[str]
    metrics: list[str]
    max_length: int | None

    @classmethod
    def from_args(cls, args: argparse.Namespace, known: dict[str, Any] | None = None) -> "Inputs":
        """From the options; what they leave open, from the task, a finished run, or the data."""
        known = {**(known or {}), **find_task(args.task)}
        data, source = load_splits(args)
        first = next(iter(data.values()))
        texts = split_words(args.text_columns) or known.get("columns") or guess_texts(first)
        label = args.label_column or known.get("label") or guess_label(first)
        first.check_columns(texts)
        names = split_words(args.label_names) or known.get("names") or []
        data = {split: labelled(ds, label, names, split) for split, ds in data.items()}
        names = names or infer_names(data, label)
        metrics = split_words(args.metric) or known.get("metric") or default_metrics(names)
        metrics = [metrics] if isinstance(metrics, str) else metrics
        length = args.max_length or known.get("max_length")
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

    def tokenized(self, tokenizer: Any, split: str) -> Any:
        """The split's rows with the model's inputs beside their own columns."""
        dataset = self.data.get(split)
        if dataset is None:
            return None
        return dataset.map(
            tokenize,
            batched=True,
            input_columns=self.text_columns,
            fn_kwargs={"tokenizer": tokenizer, "max_length": self.max_length},
        )


def tokenize(*texts: Any, tokenizer: Any, max_length: int | None) -> Any:
    return tokenizer(*texts, truncation=True, max_length=max_length)


def split_words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def find_task(name: str | None) -> dict[str, Any]:
    tasks = plugins.registry(plugins.default_manager(), "minift_tasks")
    if name is None:
        return {}
    if name not in tasks:
        raise ConfigError(f"no plugin knows the task {name!r}", expected=nearest(name, tasks))
    return tasks[name].value


def load_splits(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """{split: Dataset} and where they come from."""
    from minift.data.loading import load_dataset

    if args.dataset:
        return dict(load_dataset(args.dataset)), args.dataset
    files = {"train": args.train_file, "validation": args.validation_file}
    files = {split: file for split, file in files.items() if file}
    if not files:
        raise ArgumentError("no data was given", do="pass --dataset FOLDER or --train-file FILE")
    return {split: load_dataset(file, split="train") for split, file in files.items()}, str(files)


def guess_texts(dataset: Any) -> list[str]:
    """The text columns, where their names leave no doubt."""
    strings = [n for n, f in dataset.features.items() if getattr(f, "dtype", "") == "string"]
    for names in (["sentence1", "sentence2"], ["text"], ["sentence"]):
        if set(names) <= set(strings):
            return names
    if len(strings) == 1:
        return strings
    raise ConfigError(
        "cannot tell which columns hold the text",
        got=f"columns {', '.join(dataset.column_names)}",
        do="pass --text-columns NAME, or --text-columns FIRST,SECOND for pairs",
    )


def guess_label(dataset: Any) -> str | None:
    return next((n for n in ("label", "labels", "label_ids") if n in dataset.features), None)


def labelled(dataset: Any, label: str | None, names: list[str], split: str) -> Any:
    """The dataset with its labels as class numbers in the column `labels`, if it has them."""
    from minift.data.features import ClassLabel

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


def infer_names(data: dict[str, Any], label: str | None) -> list[str]:
    """Class names: from the feature, or LABEL_0... for as many numbers as training has."""
    from minift.data.features import ClassLabel

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
    values = [v for v in first.unique("labels") if v is not None]
    return [f"LABEL_{i}" for i in range(max(max(values, default=0) + 1, 2))]


def default_metrics(names: list[str]) -> list[str]:
    return ["accuracy", "f1"] if len(names) == 2 else ["accuracy"]


def build_trainer(model: str, inputs: Inputs, args: TrainingArguments, **options: Any) -> Any:
    """A Trainer for a model folder and inputs; everything is checked, nothing is written yet."""
    from minift.models.auto import AutoModelForSequenceClassification
    from minift.tokenizer import AutoTokenizer
    from minift.training.trainer import Trainer

    if inputs.label_column is None:
        raise ConfigError(
            "cannot tell which column holds the labels", do="pass --label-column NAME"
        )
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(
        model, id2label=dict(enumerate(inputs.names)), seed=args.seed
    )
    trainer = Trainer(
        network,
        args,
        train_dataset=inputs.tokenized(tokenizer, "train"),
        eval_dataset=inputs.tokenized(tokenizer, "validation"),
        processing_class=tokenizer,
        compute_metrics=inputs.metrics,
        **options,
    )
    trainer.run.inputs = inputs.record()
    return trainer


# ------------------------------------------------------------------------------- eval and predict


def add_eval(commands: Any) -> None:
    text = "loss and metrics of a trained model on labelled rows"
    parser = commands.add_parser("eval", help=text, description=text, allow_abbrev=False)
    parser.add_argument("model", help="run folder, or any folder with a trained classifier")
    add_data_options(parser)
    parser.add_argument("--split", default="validation", help="which rows (default: validation)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.set_defaults(run=evaluate)


def run_record(folder: str) -> dict[str, Any]:
    """What run.json says of the inputs; {} for a model that came without."""
    path = Path(folder) / "run.json"
    return json.loads(path.read_text()).get("inputs") or {} if path.is_file() else {}


def evaluate(args: argparse.Namespace) -> int:
    from minift.models.auto import AutoConfig, AutoModelForSequenceClassification
    from minift.tokenizer import AutoTokenizer
    from minift.training.trainer import Trainer

    known = run_record(args.model)
    if not (args.dataset or args.train_file or args.validation_file) and known.get("source"):
        args.dataset = known["source"]
    config = AutoConfig.from_pretrained(args.model)
    known.setdefault("names", list(config.id2label.values()))
    inputs = Inputs.from_args(args, known)
    split = args.split if args.split in inputs.data else next(iter(inputs.data), "")
    if args.split not in inputs.data and len(inputs.data) > 1:
        raise ConfigError(f"there is no split {args.split!r}", expected=", ".join(inputs.data))
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
