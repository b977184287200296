"""Training speed: minift against transformers.Trainer at equal settings, as ratios.

    make bench

Both fine-tune all-MiniLM-L6-v2 on the same rows of the demo task: batch 16, fp32, dropout 0.1, the
same number of optimizer steps. Each measurement is a process of its own; the two alternate, and
the medians and the ratios pair by pair are printed. Nothing is asserted: machines differ.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

MODEL = "all-MiniLM-L6-v2"
SETTINGS = {"per_device_train_batch_size": 16, "learning_rate": 5e-5, "logging_steps": 10}


def train_minift(folder: str, steps: int) -> dict[str, float]:
    started = time.perf_counter()
    from minift import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        load_dataset,
    )

    imported = time.perf_counter() - started
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    data = load_dataset("headlines")
    rows = data["train"].map(
        lambda b: tokenizer(b["sentence1"], b["sentence2"], truncation=True), batched=True
    )
    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2),
        TrainingArguments(
            folder, max_steps=steps, precision="fp32", device="cpu", disable_tqdm=True, **SETTINGS
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    return {"import": imported, "train": trainer.train().metrics["train_runtime"]}


def train_peer(folder: str, steps: int) -> dict[str, float]:
    from minift_demo import headlines

    from minift.data.cache import cache_root

    files = headlines.prepare(cache_root() / "demo" / "headlines")
    started = time.perf_counter()
    import datasets
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    imported = time.perf_counter() - started
    weights = str(headlines.weights_folder())
    tokenizer = AutoTokenizer.from_pretrained(weights)
    data = datasets.load_dataset("parquet", data_files=str(files / "train.parquet"))["train"]
    rows = data.map(
        lambda b: tokenizer(b["sentence1"], b["sentence2"], truncation=True), batched=True
    )
    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(weights, num_labels=2),
        TrainingArguments(
            folder, max_steps=steps, use_cpu=True, save_strategy="no", disable_tqdm=True, **SETTINGS
        ),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    return {"import": imported, "train": trainer.train().metrics["train_runtime"]}


def measure(which: str, steps: int) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--child", which, "--steps", str(steps)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--child", choices=("minift", "peer"))
    args = parser.parse_args()
    if args.child:
        with tempfile.TemporaryDirectory() as folder:
            train = train_minift if args.child == "minift" else train_peer
            found = train(folder, args.steps)
        found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found))
        return
    measure("minift", 2), measure("peer", 2)  # caches filled, files read once
    pairs = [
        (measure("minift", args.steps), measure("peer", args.steps)) for _ in range(args.pairs)
    ]
    print(f"{args.steps} steps of 16 rows, fp32, medians of {args.pairs} alternating pairs")
    for key, unit in (("train", "s"), ("import", "s"), ("peak_gb", "GB")):
        ours = statistics.median(a[key] for a, _ in pairs)
        theirs = statistics.median(b[key] for _, b in pairs)
        ratios = sorted(b[key] / a[key] for a, b in pairs)
        middle = statistics.median(ratios)
        print(
            f"{key:<8} minift {ours:6.2f} {unit:<2}  peer {theirs:6.2f} {unit:<2}  "
            f"peer / minift {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
