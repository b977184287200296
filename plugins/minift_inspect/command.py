"""`minift inspect MODEL DATASET`: a page, and the same as text."""

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace

from minift_commands.options import DataOptions, add_options

help = "follow one batch through a model: tokens, attention, losses, gradients"


def configure(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument("model", help="run folder, or any folder with a trained classifier")
    text = "folder, file or name (default: what the run was trained with)"
    parser.add_argument("dataset", nargs="?", default=SUPPRESS, help=text)
    parser.add_argument("--row", type=int, default=0, metavar="N", help="which row (default: 0)")
    parser.add_argument("--split", help="which rows (default: validation)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    text = "where to write the page (default: inspect.html)"
    parser.add_argument("--output", default="inspect.html", metavar="FILE", help=text)
    add_options(parser, "data", DataOptions)


def run(args: Namespace) -> int:
    from dataclasses import replace

    from minift_inspect.inspection import inspect

    options = DataOptions.from_args(args)
    options, dataset = replace(options, dataset=None), options.dataset
    size, split = args.batch_size, args.split
    found = inspect(args.model, dataset, args.row, None, size, split, options)
    print(found)
    print(f"the page: {found.save(args.output)}", file=sys.stderr)
    return 0
