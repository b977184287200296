"""Accuracy and F1 on MRPC's development set, over seeds.

    MINIFT_MRPC=FOLDER make mrpc

FOLDER holds GLUE's own files (train.tsv, dev.tsv). Each seed is one `minift train` as a user types
it: 3 epochs, batch 16, learning rate 5e-5, fp32, from all-MiniLM-L6-v2.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def train(seed: int, folder: str, out: Path) -> dict[str, float]:
    words = ["train", "--task", "mrpc", "--dataset", folder, "--model", "all-MiniLM-L6-v2"]
    words += ["--num-train-epochs", "3", "--per-device-train-batch-size", "16"]
    words += ["--learning-rate", "5e-5", "--precision", "fp32", "--seed", str(seed)]
    words += ["--per-device-eval-batch-size", "32", "--output-dir", str(out)]
    subprocess.run([sys.executable, "-m", "minift", *words], check=True, stdout=sys.stderr)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return next(record for record in reversed(records) if "eval_accuracy" in record)


def main() -> None:
    folder = os.environ.get("MINIFT_MRPC")
    if not folder:
        sys.exit("set MINIFT_MRPC to a folder with GLUE's MRPC files (train.tsv, dev.tsv)")
    seeds = [int(word) for word in sys.argv[1:]] or [1, 2, 3]
    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as out:
            found.append(train(seed, folder, Path(out) / "run"))
        scores = found[-1]
        print(f"seed {seed}: accuracy {scores['eval_accuracy']:.3f}  F1 {scores['eval_f1']:.3f}")
    for key in ("eval_accuracy", "eval_f1"):
        values = [scores[key] for scores in found]
        print(f"mean {key.removeprefix('eval_')} {statistics.mean(values):.3f}")


if __name__ == "__main__":
    main()
