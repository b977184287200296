"""Accuracy and F1 on MRPC's development set, over seeds.

    MINIFT_MRPC=FOLDER make mrpc
    MINIFT_MRPC=FOLDER make mrpc-peer OUT=FOLDER

FOLDER holds GLUE's own files (train.tsv, dev.tsv). `mrpc` is minift alone: each seed is one
`minift train` as a user types it, with 3 epochs, batch 16, learning rate 5e-5, fp32, from
all-MiniLM-L6-v2.

`mrpc-peer` (--peer) is defaults against defaults: TrainingArguments(folder, seed=...) of minift and
of transformers, each with 3 epochs, batch 8 and learning rate 5e-5 of its own accord. What each run
predicts goes to OUT/LIBRARY-seedN.json; a run whose file is there is not done again. The difference
in F1 comes with 95 % intervals of a paired bootstrap (Efron and Tibshirani 1993, chapter 13): the
rows are drawn with replacement, each with all its predictions by both libraries and all seeds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_train import BUILD, LIBRARIES, precision_of, run_child, write_files

from minift import evaluate

RESAMPLES = 10_000

# -- minift alone ----------------------------------------------------------------------------------


def train(seed: int, folder: str, out: Path) -> dict[str, float]:
    words = ["train", "--task", "mrpc", "--dataset", folder, "--model", "all-MiniLM-L6-v2"]
    words += ["--num-train-epochs", "3", "--per-device-train-batch-size", "16"]
    words += ["--learning-rate", "5e-5", "--precision", "fp32", "--seed", str(seed)]
    words += ["--per-device-eval-batch-size", "32", "--output-dir", str(out)]
    subprocess.run([sys.executable, "-m", "minift", *words], check=True, stdout=sys.stderr)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return next(record for record in reversed(records) if "eval_accuracy" in record)


def minift_alone(folder: str, seeds: list[int]) -> None:
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as out:
            found.append(train(seed, folder, Path(out) / "run"))
        scores = found[-1]
        print(f"seed {seed}: accuracy {scores['eval_accuracy']:.3f}  F1 {scores['eval_f1']:.3f}")
    for key in ("eval_accuracy", "eval_f1"):
        values = [scores[key] for scores in found]
        print(f"mean {key.removeprefix('eval_')} {statistics.mean(values):.3f}")


# -- against the peer ------------------------------------------------------------------------------


def child(library: str, seed: int, files: Path, rows: int | None) -> dict[str, Any]:
    """Train with the library's defaults and predict the development set; in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, validation = BUILD[library](files, rows=rows, seed=seed, output_dir=folder)
        trainer.train()
        logits, labels, _ = trainer.predict(validation)
        return {
            "library": library,
            "seed": seed,
            "rows": rows,
            "steps": trainer.state.global_step,
            "precision": precision_of(trainer),
            "predictions": np.asarray(logits).argmax(-1).tolist(),
            "labels": np.asarray(labels).tolist(),
        }


def finished(library: str, seed: int, files: Path, out: Path, rows: int | None) -> dict[str, Any]:
    """What a run predicted: from its file, or from running it now and writing the file."""
    path = out / f"{library}-seed{seed}.json"
    if not path.is_file():
        limit = [] if rows is None else ["--rows", rows]
        found = run_child(__file__, files, "--child", library, "--seeds", seed, *limit)
        half = path.with_suffix(".part")
        half.write_text(json.dumps(found))
        os.replace(half, path)  # a file of that name is whole, whenever this is interrupted
    found = json.loads(path.read_text())
    if found["rows"] != rows:
        sys.exit(f"{path} was made with --rows {found['rows']}, not {rows}: take another --out")
    return found


def scores(run: dict[str, Any]) -> tuple[float, float]:
    """(accuracy, F1) of a run."""
    pair = run["predictions"], run["labels"]
    return evaluate.accuracy(*pair)["accuracy"], evaluate.find_metric("f1")(*pair)["f1"]


def f1_parts(runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(true positives, predicted plus true positives), int of shape (seeds, rows): F1 = 2 h / m."""
    predicted, labels = (np.array([run[key] for run in runs]) for key in ("predictions", "labels"))
    return predicted * labels, predicted + labels


def bootstrap(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], seeds_too: bool
) -> tuple[float, float]:
    """The 95 % interval of F1(minift) - F1(peer), both pooled over seeds.

    Args:
        ours: minift's runs.
        theirs: the peer's, on the same rows.
        seeds_too: draw the seeds of each library with replacement as well. They aren't paired: a
            seed means other numbers in the other library.
    """
    random = np.random.default_rng(0)
    parts = [f1_parts(runs) for runs in (ours, theirs)]
    n, differences = len(ours[0]["labels"]), []
    for _ in range(RESAMPLES):
        rows = random.integers(0, n, n)
        f1 = []
        for hits, marked in parts:
            s = len(hits)
            seeds = random.integers(0, s, s) if seeds_too else np.arange(s)
            drawn = np.ix_(seeds, rows)
            f1.append(2 * hits[drawn].sum() / max(marked[drawn].sum(), 1))
        differences.append(f1[0] - f1[1])
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def against_peer(seeds: list[int], out: Path, rows: int | None) -> None:
    """Run what is missing, seed by seed so that an interrupted comparison is a fair one."""
    out.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict[str, Any]]] = {library: [] for library in LIBRARIES}
    with tempfile.TemporaryDirectory() as files:
        write_files(Path(files))
        for seed in seeds:
            for library in LIBRARIES:
                run = finished(library, seed, Path(files), out, rows)
                runs[library].append(run)
                accuracy, f1 = scores(run)
                print(
                    f"seed {seed} {library:<6} {run['precision']}, {run['steps']} steps: "
                    f"accuracy {accuracy:.3f}  F1 {f1:.3f}",
                    flush=True,
                )
    labels = runs["minift"][0]["labels"]
    if any(run["labels"] != labels for found in runs.values() for run in found):
        sys.exit(f"the files in {out} are not about the same rows: take another --out")
    pooled = []
    for library, found in runs.items():
        accuracies, f1s = zip(*map(scores, found), strict=True)
        print(
            f"mean   {library:<6} accuracy {statistics.mean(accuracies):.3f}  "
            f"F1 {statistics.mean(f1s):.3f} ({min(f1s):.3f} to {max(f1s):.3f})"
        )
        hits, marked = f1_parts(found)
        pooled.append(2 * hits.sum() / max(marked.sum(), 1))
    print(f"F1 pooled over {len(seeds)} seeds, minift - peer: {pooled[0] - pooled[1]:+.4f}")
    for what, seeds_too in (("rows", False), ("rows and seeds", True)):
        low, high = bootstrap(runs["minift"], runs["peer"], seeds_too)
        print(f"  95 % interval over {what}: {low:+.4f} to {high:+.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", help="1 2 3; with --peer 1 2 3 4 5")
    parser.add_argument("--peer", action="store_true", help="defaults against transformers'")
    parser.add_argument("--out", type=Path, help="folder of the predictions, with --peer")
    parser.add_argument("--rows", type=int, help="train on the first rows only, for a dry run")
    parser.add_argument("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.seeds[0], args.files, args.rows)))
        return
    folder = os.environ.get("MINIFT_MRPC")
    if not folder:
        sys.exit("set MINIFT_MRPC to a folder with GLUE's MRPC files (train.tsv, dev.tsv)")
    if not args.peer:
        minift_alone(folder, args.seeds or [1, 2, 3])
    elif not args.out:
        parser.error("--peer needs --out FOLDER, where the predictions are kept")
    else:
        against_peer(args.seeds or [1, 2, 3, 4, 5], args.out, args.rows)


if __name__ == "__main__":
    main()
