"""`minift predict`: labels and probabilities from a model that was trained before."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from minift_commands.options import DataOptions, split_words

from minift.errors import ArgumentError

help = "labels and probabilities for a text, a pair, or the rows of a file"


def configure(parser: ArgumentParser) -> None:
    parser.allow_abbrev = False
    parser.add_argument("model", help="run folder, or any folder with a trained classifier")
    parser.add_argument("text", nargs="*", help="one text, or the two texts of a pair")
    parser.add_argument("--file", help="csv, tsv, json, jsonl or parquet: a JSON line a row")
    text = "the same for a split of the data that the model was trained with"
    parser.add_argument("--split", help=text)
    parser.add_argument("--text-columns", help="one column of text, or two: a,b")
    parser.add_argument("--device", default="auto")


def run(args: Namespace) -> int:
    from minift_commands.resolve import RunInputs

    from minift_pipeline.pipeline import pipeline

    run = RunInputs.read(args.model)
    if [bool(args.text), bool(args.file), bool(args.split)].count(True) != 1 or args.text[2:]:
        raise ArgumentError("give one text, two texts (a pair), --file FILE or --split NAME")
    columns = split_words(args.text_columns) or run.choices.columns
    texts = [from_texts(args.text, columns)] if args.text else from_rows(args, run, columns)
    classify: Any = pipeline("text-classification", args.model, device=args.device)
    for labels in classify(texts, top_k=None):
        scores = {one["label"]: round(one["score"], 4) for one in labels}
        if not args.text:
            print(json.dumps({"label": labels[0]["label"], "scores": scores}))
        else:
            print("\n".join(f"{score:.4f}  {label}" for label, score in scores.items()))
    return 0


def from_texts(texts: list[str], columns: list[str] | None) -> dict[str, str]:
    """Make a pipeline's input of the texts that were typed.

    Raises:
        ArgumentError: the model was trained on pairs and got one text, or the other way round.
    """
    if columns and len(columns) != len(texts):
        what = f"this model was trained on {'pairs' if len(columns) == 2 else 'single texts'}"
        raise ArgumentError(what, got=f"{len(texts)} text(s)", expected=", ".join(columns))
    return dict(zip(("text", "text_pair"), texts, strict=False))


def from_rows(args: Namespace, run: Any, columns: list[str] | None) -> list[dict[str, str]]:
    """Make a pipeline's inputs of the rows of --file or --split."""
    from minift_commands.build import Inputs
    from minift_commands.resolve import likely_columns, unclear_columns

    from minift.data.loading import load_dataset

    if args.split:
        dataset = Inputs.prepare(DataOptions(**run.source), run).rows(args.split)
    else:
        dataset = load_dataset(args.file, split="train")
    columns = columns or likely_columns(dataset)
    if columns is None:
        raise unclear_columns(dataset)
    dataset.check_columns(columns)
    values = dataset.select_columns(columns).to_dict()
    keys = ("text", "text_pair")[: len(columns)]
    return [dict(zip(keys, row, strict=True)) for row in zip(*values.values(), strict=True)]
