"""`minift train`: from files, or a dataset by name, to a saved model."""

import shlex
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import fields
from functools import partial

from minift.errors import ArgumentError
from minift.plugins import call_observers, default_manager
from minift.training.arguments import TrainingArguments
from minift_commands.options import DataOptions, add_options, apply_config

COMMON = ("command", "run", "p", "plugin", "debug")  # what `minift` itself puts there

help = "fine-tune a model on labelled texts or pairs"


def configure(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument("--config", metavar="FILE", help="a TOML file with any of these options")
    text = "folder with config.json, model.safetensors, tokenizer.json"
    parser.add_argument("--model", help=text)
    add_options(parser, "data", DataOptions)
    add_options(parser, "training arguments", TrainingArguments)
    group = parser.add_argument_group("options of plugins")
    report = partial(print, file=sys.stderr)
    call_observers(default_manager(), "minift_add_options", report, parser=group)


def run(args: Namespace) -> int:
    """Load, tokenize, train, evaluate, save."""
    from minift_commands.build import Inputs, build_trainer, train_and_save

    apply_config(args)
    if not args.model:
        raise ArgumentError("minift train needs --model", do="pass a folder with a model")
    names = [field.name for field in fields(TrainingArguments)]
    settings = {name: value for name, value in vars(args).items() if name in names}
    known = {*names, *(field.name for field in fields(DataOptions)), "config", "model", *COMMON}
    training_args = TrainingArguments(**settings)
    inputs = Inputs.prepare(DataOptions.from_args(args))
    trainer = build_trainer(args.model, inputs, training_args)
    again = shlex.join([*sys.argv[1:], "--resume-from-checkpoint", "true"])
    trainer.run.options = {n: value for n, value in vars(args).items() if n not in known}
    trainer.run.resume_command = f"minift {again}"
    metrics = train_and_save(trainer)
    if trainer.run.device.rank > 0:  # one process of several says how it ended
        return 0
    times = ("epoch", "runtime", "per_second")
    shown = [name for name in metrics if not name.endswith(times)]
    if shown:
        print("  ".join(f"{name} {metrics[name]:.4f}" for name in shown))
    elif "validation" in inputs.data:
        print("the validation data has no labels, so nothing is scored")
    print(f"saved to {trainer.args.output_dir}")
    return 0
