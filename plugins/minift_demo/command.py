"""`minift demo`: train, evaluate, show right and wrong examples, say what to type next."""

import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from minift_demo.names import MODEL, TASK

# Three quarters of a pass keep training near a minute on two cores; more passes score higher.
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 0.75,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "learning_rate": 1e-4,
    "warmup_steps": 0.1,
    "save_strategy": "no",  # a minute's run is sooner repeated than resumed
}
EXAMPLES = 3

help = "fine-tune MiniLM on 'does this headline belong to this article?'"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--output-dir", default="runs/demo", help="run folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps")


def run(args: Namespace) -> int:
    from minift_commands.build import Inputs, build_trainer, train_and_save
    from minift_commands.options import DataOptions

    from minift import TrainingArguments

    inputs = Inputs.prepare(DataOptions(dataset=TASK, task=TASK))
    splits = inputs.data
    chosen = {"device": args.device, "seed": args.seed, "max_steps": args.max_steps}
    settings = TrainingArguments(args.output_dir, **chosen, **SETTINGS)
    print(f"{TASK}: " + ", ".join(f"{len(ds)} {split} pairs" for split, ds in splits.items()))
    trainer = build_trainer(MODEL, inputs, settings)
    train_and_save(trainer)
    tokenizer = trainer.processing_class
    result = trainer.predict(inputs.tokenized(tokenizer, "test"))
    report(result, splits["test"], inputs.label_names)
    next_steps(args.output_dir, splits["test"])
    return 0


def report(result: Any, rows: Any, names: list[str]) -> None:
    """Print scores beside those of always answering the commoner class, then examples."""
    import numpy as np
    import torch
    from rich.console import Console
    from rich.table import Table

    from minift.evaluate import find_metric

    labels = result.label_ids
    best = torch.from_numpy(result.predictions).softmax(-1).max(-1)
    probability, guesses = best.values.numpy(), best.indices.numpy()
    commoner = np.full_like(labels, np.bincount(labels).argmax())
    title = f"{len(rows)} test pairs, articles never seen in training"
    table = Table("", "accuracy", "F1", title=title)
    for title, answers in (("this model", guesses), ("always the commoner class", commoner)):
        accuracy, f1 = find_metric("glue/mrpc")(answers, labels).values()
        table.add_row(title, f"{accuracy:.3f}", f"{f1:.3f}")
    console = Console(file=sys.stdout, width=100)
    console.print(table)
    surest = np.argsort(-probability)
    for title, chosen in (("right", guesses == labels), ("wrong", guesses != labels)):
        console.print(f"\n{title}, the surest first", style="bold")
        for i in [i for i in surest if chosen[i]][:EXAMPLES]:
            row = rows[int(i)]
            answer = f"says {names[guesses[i]]} ({probability[i]:.2f})"
            truth = "" if guesses[i] == labels[i] else f", is {names[labels[i]]}"
            console.print(f"  {answer}{truth}: {row['sentence1']}", highlight=False, markup=False)
            console.print(f"    {row['sentence2'][:90]}...", style="dim", markup=False)


def next_steps(folder: str, rows: Any) -> None:
    """Print commands that go on from here, as they can be typed."""
    row = rows[0]
    minift = sys.argv[0] if Path(sys.argv[0]).name == "minift" else "minift"
    texts = " ".join(shlex.quote(text) for text in (row["sentence1"], row["sentence2"][:60]))
    print(f"\n{folder} holds the model (Hugging Face layout), run.json and metrics.jsonl. Next:")
    print(f"  {minift} predict {folder} {texts}")
    print(f"  {minift} eval {folder} --split test")
    print(f"  {minift} train --help")
    print(f"  {minift} plugins --loop        and read minift/training/loop.py")
