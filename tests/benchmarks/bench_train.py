"""Training speed: minift against transformers.Trainer, as ratios.

    make bench          equal settings: training, memory, import
    make bench-train    everything below; ARGS="--pairs 7 --steps 24" or ARGS=--epoch changes it

Both fine-tune all-MiniLM-L6-v2 on the same rows: MRPC's own where MINIFT_MRPC names their folder,
else the demo's headlines. Each measurement is a process of its own with one of the two libraries in
it; the two alternate, and what is printed are medians and the ratios pair by pair. The parts:

    train      batch 16, dropout 0.1, the same number of optimizer steps; fp32, and bf16 where the
               processor computes it natively
    evaluate   the validation rows, batch 16, in the same precisions
    defaults   TrainingArguments(folder) of each with no other option: batch 8, precision, log lines
               and checkpoints as each library likes them
    import     `from LIBRARY import Trainer` in a fresh interpreter
    overhead   milliseconds a step that are neither forward nor backward nor optimizer: a model that
               computes nothing, on rows of a few tokens
    adamw      one update of MiniLM's 22 million parameters: minift.AdamW against torch's fused one

Nothing is asserted: machines differ. On a GPU: BENCH_DEVICE=cuda in front of either command; peak
memory is still the host's.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MODEL = "all-MiniLM-L6-v2"
LIBRARIES = ("minift", "peer")
PARTS = ("train", "evaluate", "defaults", "import", "overhead", "adamw")
EQUAL = {
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "learning_rate": 5e-5,
    "logging_steps": 10,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
DEVICE = os.environ.get("BENCH_DEVICE", "cpu")
DEFAULT_BATCH, DEFAULT_EPOCHS = 8, 3  # of both libraries
LONGER = 4  # times --steps of the part `defaults`: each of its runs ends with a checkpoint
NOTHING_STEPS, NOTHING_TOKENS = 1000, 8  # of the part `overhead`
IMPORTS = {"minift": "minift", "peer": "transformers"}

# -- the files that both read ----------------------------------------------------------------------


def write_files(folder: Path) -> dict[str, int]:
    """Parquet files with sentence1, sentence2, label, and a link to the weights; rows by split.

    So neither library reads through the other's code, and a process has one of them in memory.
    """
    import pyarrow.parquet as pq

    from minift import load_dataset
    from minift.plugins import resolve_checkpoint

    data = load_dataset(os.environ.get("MINIFT_MRPC", "headlines"))
    names = ["sentence1", "sentence2", "label"]
    for split in ("train", "validation"):
        table = data[split].to_arrow(columns=names).replace_schema_metadata(None)
        pq.write_table(table, folder / f"{split}.parquet")
    (folder / "weights").symlink_to(resolve_checkpoint(MODEL).folder, target_is_directory=True)
    return {split: len(data[split]) for split in ("train", "validation")}


# -- a Trainer of each library ---------------------------------------------------------------------


def minift_trainer(
    files: Path, rows: int | None = None, seed: int | None = None, **settings
) -> Any:
    """minift's Trainer on the files, and the validation rows.

    Args:
        files: the folder of `write_files`.
        rows: the first rows of the training split only.
        seed: of the new head and of the run; each library's own way if None.
        settings: of TrainingArguments.
    """
    from minift import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        load_dataset,
    )

    if seed is not None:
        settings["seed"] = seed
    tokenizer = AutoTokenizer.from_pretrained(files / "weights")
    names = {split: str(files / f"{split}.parquet") for split in ("train", "validation")}
    data = load_dataset("parquet", data_files=names).map(
        lambda b: tokenizer(b["sentence1"], b["sentence2"], truncation=True), batched=True
    )
    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(
            files / "weights", num_labels=2, seed=seed
        ),
        TrainingArguments(**settings),
        train_dataset=data["train"].select(range(rows or len(data["train"]))),
        eval_dataset=data["validation"],
        processing_class=tokenizer,
    )
    return trainer, data["validation"]


def peer_trainer(
    files: Path, rows: int | None = None, seed: int | None = None, **settings: Any
) -> tuple[Any, Any]:
    """The same of transformers and datasets."""
    import datasets
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    if seed is not None:
        settings["seed"] = seed
        set_seed(seed)  # which the new head is drawn from
    weights = str(files / "weights")
    tokenizer = AutoTokenizer.from_pretrained(weights)
    names = {split: str(files / f"{split}.parquet") for split in ("train", "validation")}
    data = datasets.load_dataset("parquet", data_files=names).map(
        lambda b: tokenizer(b["sentence1"], b["sentence2"], truncation=True), batched=True
    )
    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(weights, num_labels=2),
        TrainingArguments(**settings),
        train_dataset=data["train"].select(range(rows or len(data["train"]))),
        eval_dataset=data["validation"],
        processing_class=tokenizer,
    )
    return trainer, data["validation"]


BUILD: dict[str, Callable[..., Any]] = {"minift": minift_trainer, "peer": peer_trainer}


def precision_settings(library: str, precision: str) -> dict[str, Any]:
    if library == "minift":
        return {"precision": precision, "device": DEVICE}
    # Without a GPU it refuses bf16 unless told to compute on the cpu.
    return {"bf16": precision == "bf16", "use_cpu": DEVICE == "cpu"}


def precision_of(trainer: Any) -> str:
    """What it computes in; both libraries' arguments say so once the Trainer is made."""
    return "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32"


# -- one measurement, in a process of its own ------------------------------------------------------


def measure_train(library: str, files: Path, folder: str, steps: int, precision: str) -> dict:
    settings = {**EQUAL, **precision_settings(library, precision)}
    trainer, _ = BUILD[library](files, output_dir=folder, max_steps=steps, **settings)
    return {"seconds": trainer.train().metrics["train_runtime"]}


def measure_evaluate(library: str, files: Path, folder: str, steps: int, precision: str) -> dict:
    settings = {**EQUAL, **precision_settings(library, precision)}
    trainer, _ = BUILD[library](files, output_dir=folder, **settings)
    trainer.evaluate()  # takes what only first passes need
    return {"seconds": trainer.evaluate()["eval_runtime"]}


def measure_defaults(library: str, files: Path, folder: str, steps: int, precision: str) -> dict:
    """Rows are what is limited, since max_steps would be an option."""
    rows = max(1, steps // DEFAULT_EPOCHS) * DEFAULT_BATCH
    trainer, _ = BUILD[library](files, rows=rows, output_dir=folder)
    seconds = trainer.train().metrics["train_runtime"]
    done = trainer.state.global_step
    return {"seconds": seconds / done, "steps": done, "precision": precision_of(trainer)}


def measure_import(library: str, files: Path, folder: str, steps: int, precision: str) -> dict:
    started = time.perf_counter()
    exec(f"from {IMPORTS[library]} import Trainer")
    return {"seconds": time.perf_counter() - started}


def measure_overhead(library: str, files: Path, folder: str, steps: int, precision: str) -> dict:
    """A run of steps that compute nothing, less the same steps without a loop around them.

    A first, short run takes what only first runs need.
    """
    for steps in (20, NOTHING_STEPS):
        trainer = overhead_trainer(library, files, output_dir=folder, max_steps=steps)
        seconds = trainer.train().metrics["train_runtime"]
    return {"seconds": seconds / steps - bare_step(trainer.model, library)}


def bare_step(model: Any, library: str) -> float:
    """Seconds of forward, backward and AdamW of the model that computes nothing."""
    import torch

    from minift import AdamW

    parameters = list(model.parameters())
    optimizer = AdamW(parameters) if library == "minift" else torch.optim.AdamW(parameters)
    ids = torch.ones(EQUAL["per_device_train_batch_size"], NOTHING_TOKENS, dtype=torch.int64)

    def step() -> None:
        outputs = model(ids)
        (outputs["loss"] if library == "peer" else outputs.loss_sum).backward()
        optimizer.step()

    return statistics.median(timed(step) for _ in range(NOTHING_STEPS))


def measure_adamw(library: str, files: Path, folder: str, steps: int, precision: str) -> dict:
    """One process has both here: they take turns update by update."""
    import torch

    from minift import AdamW, AutoModelForSequenceClassification
    from minift.optim import parameter_groups

    torch.manual_seed(0)
    updates = []
    for optimizer_of in (
        lambda model: AdamW(parameter_groups(model, 0.0), lr=5e-5),
        lambda model: torch.optim.AdamW(parameter_groups(model, 0.0), lr=5e-5, fused=True),
    ):
        model = AutoModelForSequenceClassification.from_pretrained(files / "weights", num_labels=2)
        for p in model.parameters():
            p.grad = torch.randn_like(p) * 1e-3
        updates.append(optimizer_of(model).step)
    pairs = [[timed(update) for update in updates] for _ in range(35)][5:]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "pairs": [{"seconds": seconds} for pair in pairs for seconds in pair],
    }


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def overhead_trainer(library: str, files: Path, **settings: Any) -> Any:
    """A Trainer of the library whose model computes next to nothing."""
    if library == "minift":
        from minift import AutoTokenizer, Dataset, Trainer, TrainingArguments
    else:
        from datasets import Dataset
        from transformers import AutoTokenizer, Trainer, TrainingArguments
    ids = [101, *range(2000, 2000 + NOTHING_TOKENS - 2), 102]
    rows = {"input_ids": ids, "token_type_ids": [0] * len(ids), "attention_mask": [1] * len(ids)}
    n = 64 * EQUAL["per_device_train_batch_size"]
    columns = {name: [list(row) for _ in range(n)] for name, row in rows.items()}
    return Trainer(
        nothing_model(library),
        TrainingArguments(**EQUAL, **precision_settings(library, "fp32"), **settings),
        train_dataset=Dataset.from_dict({**columns, "label": [i % 2 for i in range(n)]}),
        processing_class=AutoTokenizer.from_pretrained(str(files / "weights")),
    )


def nothing_model(library: str) -> Any:
    """One parameter, and what each library wants of a model's output."""
    import torch

    class Nothing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):
            logits = self.weight.expand(len(input_ids), 2)
            if library == "peer":
                return {"loss": self.weight.sum(), "logits": logits}
            count = torch.tensor(len(input_ids))
            return SimpleNamespace(loss_sum=self.weight.sum(), num_items=count, logits=logits)

    return Nothing()


MEASURE = {part: globals()[f"measure_{part}"] for part in PARTS}


def child(part: str, library: str, files: Path, steps: int, precision: str) -> dict[str, Any]:
    """What a process of its own does and prints."""
    with tempfile.TemporaryDirectory() as folder:
        found = MEASURE[part](library, files, folder, steps, precision)
    return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


# -- pairs of measurements, and what is printed of them --------------------------------------------


def run_child(script: str, files: Path, *words: Any) -> dict[str, Any]:
    """What `script --files FILES WORDS` prints last; both libraries' caches lie with the files."""
    command = [sys.executable, script, "--files", str(files), *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"MINIFT_CACHE": str(files / "minift")}
    environment |= {"HF_DATASETS_CACHE": str(files / "datasets")}
    if DEVICE == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def alternate(part: str, files: Path, pairs: int, steps: int, precision: str = "fp32") -> list:
    """`pairs` times minift's and the peer's measurement, after one of each that is not counted."""

    def measure(library: str, steps: int) -> dict[str, Any]:
        words = ("--child", part, library, "--steps", steps, "--precision", precision)
        return run_child(__file__, files, *words)

    for library in LIBRARIES:
        measure(library, min(steps, 3))  # fills the caches
    return [[measure(library, steps) for library in LIBRARIES] for _ in range(pairs)]


def show(what: str, pairs: Sequence[Sequence[dict]], key: str, unit: str, scale: float = 1) -> None:
    """A line: the median of each, the median ratio, and the smallest and largest."""
    ours, theirs = (statistics.median(pair[i][key] for pair in pairs) * scale for i in (0, 1))
    ratios = sorted(b[key] / a[key] for a, b in pairs)
    print(
        f"{what:<26} minift {ours:8.2f} {unit:<2}  peer {theirs:8.2f} {unit:<2}  "
        f"peer / minift {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def precisions() -> list[str]:
    """fp32, and bf16 where the device says that it is native; else a line says why not."""
    from minift.device import choose_device
    from minift.plugins import default_manager

    slow = choose_device(DEVICE, default_manager()).precisions().get("bf16", "not offered")
    if slow:
        print(f"bf16 skipped: {slow}")
    return ["fp32"] if slow else ["fp32", "bf16"]


def report(part: str, files: Path, rows: dict[str, int], args: argparse.Namespace) -> None:
    """Measure a part and print its lines."""
    if part in ("train", "evaluate"):
        for precision in args.precisions:
            pairs = alternate(part, files, args.pairs, args.steps, precision)
            title = f"{part} {precision}, {args.steps} steps"
            if part == "evaluate":
                title = f"{part} {precision}, {rows['validation']} rows"
            show(title, pairs, "seconds", "s")
            show("  peak memory", pairs, "peak_gb", "GB")
    elif part == "defaults":
        steps = -(-rows["train"] // DEFAULT_BATCH) if args.epoch else LONGER * args.steps
        pairs = alternate(part, files, args.pairs, steps)
        show(f"{part}, one of {pairs[0][0]['steps']} steps", pairs, "seconds", "ms", 1e3)
        show("  peak memory", pairs, "peak_gb", "GB")
        names = [f"{library} {pairs[0][i]['precision']}" for i, library in enumerate(LIBRARIES)]
        print(f"  precision: {', '.join(names)}; the last step of each writes a checkpoint")
    elif part == "adamw":
        found = run_child(__file__, files, "--child", part, "minift")
        flat = found["pairs"]
        title = f"{part}, {found['parameters'] / 1e6:.1f} M"
        show(title, list(zip(flat[::2], flat[1::2], strict=True)), "seconds", "ms", 1e3)
    else:
        pairs = alternate(part, files, args.pairs, args.steps)
        unit, scale = ("ms", 1e3) if part == "overhead" else ("s", 1)
        show(f"{part}, a step" if part == "overhead" else part, pairs, "seconds", unit, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join((*PARTS, "all")))
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run")
    parser.add_argument("--epoch", action="store_true", help="as many steps as an epoch has")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each library")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(*args.child, args.files, args.steps, args.precision)))
        return
    parts = PARTS if "all" in args.parts else args.parts or ("train", "import")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = write_files(Path(folder))
        if args.epoch:
            args.steps = -(-rows["train"] // EQUAL["per_device_train_batch_size"])
        data = "MRPC" if "MINIFT_MRPC" in os.environ else "headlines"
        print(f"{MODEL} on {data}, medians of {args.pairs} alternating pairs of processes")
        args.precisions = precisions() if {"train", "evaluate"} & set(parts) else []
        for part in parts:
            report(part, Path(folder), rows, args)


if __name__ == "__main__":
    main()
