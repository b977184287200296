"""`minift predict`: labels and probabilities from a model that was trained before."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from minift.errors import ArgumentError


class Predict:
    """The command, as `minift_register_commands` wants it."""

    help = "labels and probabilities for a text, a pair, or the rows of a file"

    @staticmethod
    def configure(parser: ArgumentParser) -> None:
        parser.allow_abbrev = False
        text = "run folder, or any folder with a trained classifier"
        parser.add_argument("model", help=text)
        parser.add_argument("text", nargs="*", help="one text, or the two texts of a pair")
        text = "csv, tsv, json, jsonl or parquet; prints a JSON line a row"
        parser.add_argument("--file", help=text)
        text = "the same for a split of the data that the model was trained with"
        parser.add_argument("--split", help=text)
        parser.add_argument("--text-columns", help="one column of text, or two: a,b")
        parser.add_argument("--device", default="auto")

    @staticmethod
    def run(args: Namespace) -> int:
        from minift.data.loading import load_dataset
        from minift.pipeline import pipeline
        from minift_commands.inputs import Inputs, guess_texts, run_record, split_words

        known = run_record(args.model)
        if [bool(args.text), bool(args.file), bool(args.split)].count(True) != 1 or args.text[2:]:
            raise ArgumentError("give one text, two texts (a pair), --file FILE or --split NAME")
        columns = split_words(args.text_columns) or known.get("columns")
        rows: Any
        if not args.text:
            if args.split:
                source = Namespace(**known.get("source", {}))
                dataset = Inputs.from_args(source, known).rows(args.split)
            else:
                dataset = load_dataset(args.file, split="train")
            columns = columns or guess_texts(dataset)
            dataset.check_columns(columns)
            values = dataset.select_columns(columns).to_dict()
            keys = ("text", "text_pair")[: len(columns)]
            rows = [dict(zip(keys, row, strict=True)) for row in zip(*values.values(), strict=True)]
        else:
            if columns and len(columns) != len(args.text):
                raise ArgumentError(
                    "this model was trained on "
                    + ("pairs" if len(columns) == 2 else "single texts"),
                    got=f"{len(args.text)} text(s)",
                    expected=", ".join(columns),
                )
            rows = [dict(zip(("text", "text_pair"), args.text, strict=False))]
        classify: Any = pipeline("text-classification", args.model, device=args.device)
        for labels in classify(rows, top_k=None):
            scores = {found["label"]: round(found["score"], 4) for found in labels}
            if not args.text:
                print(json.dumps({"label": labels[0]["label"], "scores": scores}))
            else:
                print("\n".join(f"{score:.4f}  {label}" for label, score in scores.items()))
        return 0
