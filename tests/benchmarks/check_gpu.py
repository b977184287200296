"""What an accelerator computes, waits for and does without memory, on real weights and texts.

    python tests/benchmarks/check_gpu.py [--device cuda]

all-MiniLM-L6-v2 on MRPC where MINIFT_MRPC names its folder, else on the demo's headlines; 16 rows a
step. Prints four things and asserts none; `pytest tests/test_cuda.py` does that, on a tiny model.

    same numbers   20 steps without dropout: how far losses and gradient norms are from the cpu's
    repeatable     30 steps with dropout, twice: whether all weights are equal to the bit
    waits          40 steps, two log points: how often the host waited, as torch itself says (CUDA)
    memory         3 steps of 1,024 rows, then with less memory than that takes (CUDA)
"""

import argparse
import os
import warnings
from typing import Any

import torch

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    load_dataset,
)

MODEL = "all-MiniLM-L6-v2"
Trace = tuple[list[float], list[float]]


def train(
    device: str, tokenizer: Any, rows: Any, dropout: bool = False, **settings: Any
) -> Trainer:
    """A run that logs every step; nothing is written."""
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2, seed=1)
    for module in () if dropout else model.modules():
        for name in {"p", "p_attention", "p_out"} & vars(module).keys():
            setattr(module, name, 0.0)
    usual = {"per_device_train_batch_size": 16, "logging_steps": 1, "save_strategy": "no"}
    usual |= {"disable_tqdm": True, "max_steps": 20}
    arguments = TrainingArguments(None, device=device, **{**usual, **settings})
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    return trainer


def trace(trainer: Trainer) -> Trace:
    """Losses and gradient norms, step by step."""
    records = [record for record in trainer.state.log_history if "loss" in record]
    return [r["loss"] for r in records], [r["grad_norm"] for r in records]


def apart(got: Trace, want: Trace) -> str:
    """The largest relative distances."""
    worst = (
        max(abs(a - b) / abs(b) for a, b in zip(g, w, strict=True))
        for g, w in zip(got, want, strict=True)
    )
    return "losses {:.1e}, gradient norms {:.1e}".format(*worst)


def same_numbers(device: str, precisions: list[str], *data: Any) -> None:
    want = trace(train("cpu", *data, precision="fp32"))
    for precision in precisions:
        got = trace(train(device, *data, precision=precision))
        print(f"same numbers, {precision}: {apart(got, want)}")


def repeatable(device: str, precisions: list[str], *data: Any) -> None:
    for precision in precisions:
        states = []
        for _ in range(2):
            run = train(device, *data, dropout=True, precision=precision, max_steps=30)
            states.append({name: t.cpu() for name, t in run.model.state_dict().items()})
        equal = all(torch.equal(t, states[1][name]) for name, t in states[0].items())
        print(f"repeatable, {precision}: {'to the bit' if equal else 'NO'}")


def waits(device: str, precisions: list[str], *data: Any) -> None:
    for precision in precisions:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            manner = {"dropout": True, "precision": precision}
            train(device, *data, max_steps=40, logging_steps=20, **manner)
            torch.cuda.set_sync_debug_mode("default")
        found = sum("called a synchronizing" in str(one.message) for one in told)
        print(f"waits, {precision}: {found} in 40 steps with two log points")


def memory(device: str, precisions: list[str], *data: Any) -> None:
    def within(share: float) -> tuple[Trace, int]:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(share)
        torch.cuda.reset_peak_memory_stats()
        wide = {"per_device_train_batch_size": 1024, "max_steps": 3, "precision": "fp32"}
        run = train(device, *data, **wide)
        torch.cuda.set_per_process_memory_fraction(1.0)
        return trace(run), torch.cuda.max_memory_allocated()

    want, peak = within(1.0)
    total = torch.cuda.get_device_properties(0).total_memory
    for share in (0.8, 0.4):
        got, less = within(share * peak / total)
        print(f"memory, {less / 2**30:.1f} GB instead of {peak / 2**30:.1f}: {apart(got, want)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rows = load_dataset(os.environ.get("MINIFT_MRPC", "headlines"))["train"].map(
        lambda b: tokenizer(b["sentence1"], b["sentence2"], truncation=True), batched=True
    )
    on_cuda = device.startswith("cuda")
    same_numbers(device, ["fp32", "bf16", *(["tf32", "fp16"] if on_cuda else [])], tokenizer, rows)
    repeatable(device, ["fp32", "bf16"], tokenizer, rows)
    if on_cuda:
        waits(device, ["fp32", "bf16", "fp16"], tokenizer, rows)
        memory(device, ["fp32"], tokenizer, rows)


if __name__ == "__main__":
    main()
