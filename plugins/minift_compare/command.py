"""The command line of `minift compare`."""

import json
from argparse import ArgumentParser, Namespace

help = "whether one model is better than another on the same rows, or it is noise"


def configure(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument("a", metavar="RUN_A", help="run folder: the model to compare with")
    parser.add_argument("b", metavar="RUN_B", help="run folder: the model that may be better")
    parser.add_argument("--split", help="which rows (default: validation)")
    parser.add_argument("--metric", help="metrics to compare by (default: RUN_A's own)")
    parser.add_argument("--dataset", help="rows other than those that the runs had")
    parser.add_argument("--task", help="what the rows are, for models that are no runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: Namespace) -> int:
    # Here, because `minift --help` asks for the command, and must not import torch.
    from minift_compare.comparison import as_text, compare_runs

    report = compare_runs(args.a, args.b, args)
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0
