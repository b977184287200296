"""`minift eval`: the loss and metrics of a model that was trained before."""

import json
from argparse import ArgumentParser, Namespace

from minift_commands.options import DataOptions, add_options

help = "loss and metrics of a trained model on labelled rows"


def configure(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument("model", help="run folder, or any folder with a trained classifier")
    add_options(parser, "data", DataOptions)
    parser.add_argument("--split", help="which rows (default: validation)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)


def run(args: Namespace) -> int:
    from minift_commands.build import inputs_for, predict_split

    inputs = inputs_for(args.model, DataOptions.from_args(args))
    _, output = predict_split(args.model, inputs, args.split, args.device, args.batch_size)
    print(json.dumps(output.metrics, indent=2))
    return 0
