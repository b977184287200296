"""Model speed: minift's BERT against that of transformers in a bare loop, as ratios.

    make bench-model

Both compute the same batches: MRPC's own rows where MINIFT_MRPC names their folder, else the demo's
headlines; 16 rows a batch, all-MiniLM-L6-v2. A training step is forward, backward, clipping
and AdamW (the peer's is torch's fused one) with dropout 0.1; evaluation is the forward pass alone.
The two take turns batch by batch in one process, so that a slow moment of the machine meets
both; the ratio of each batch is taken, and the median of these printed.

The last column is the share of a step that its matrix products alone would need, at the best rate
that this machine showed for them in the same run. Nothing is asserted: machines differ.
"""

import argparse
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the peer is imported: it reads it then
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers

from minift import AdamW, AutoModelForSequenceClassification, AutoTokenizer, load_dataset
from minift.collate import DataCollatorWithPadding
from minift.device import Device, choose_device
from minift.optim import parameter_groups
from minift.plugins import default_manager, resolve_checkpoint
from minift.training.batches import row_order, split_into_batches

MODEL = "all-MiniLM-L6-v2"
Batch = dict[str, torch.Tensor]


def read_batches(split: str, count: int) -> list[Batch]:
    """Padded batches in the order of a first epoch, or of the file for evaluation."""
    data = load_dataset(os.environ.get("MINIFT_MRPC", "headlines"))[split]
    texts = [n for n, f in data.features.items() if getattr(f, "dtype", "") == "string"]
    texts = [name for name in ("sentence1", "sentence2") if name in texts] or texts[:2]
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rows = data.map(lambda *t: tokenizer(*t, truncation=True), batched=True, input_columns=texts)
    rows = rows.select_columns([*tokenizer.model_input_names, "label"])
    n = len(rows)
    order = row_order(n, 0, 0) if split == "train" else range(n)
    collate = DataCollatorWithPadding(tokenizer)
    return [collate(rows.__getitems__(part)) for part in split_into_batches(order, 16)[:count]]


def ours(device: Device, precision: str) -> tuple[Callable[[Batch], None], Callable[[Batch], None]]:
    """(a training step, a forward pass) as minift's loop does them."""
    model = device.prepare(AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2))
    optimizer = AdamW(parameter_groups(model, 0.0), lr=5e-5)

    def train(batch: Batch) -> None:
        model.train()
        with device.autocast(precision):
            outputs = model(**batch)
        device.backward(outputs.loss_sum)
        device.clip_grad_norm(optimizer, 1.0, outputs.num_items)
        device.step(optimizer, torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)

    def evaluate(batch: Batch) -> None:
        model.eval()
        with torch.inference_mode(), device.autocast(precision):
            model(**batch)

    return train, evaluate


def peers(precision: str) -> tuple[Callable[[Batch], None], Callable[[Batch], None]]:
    """The same with transformers' model and torch's optimizer, as its Trainer does them."""
    folder = str(resolve_checkpoint(MODEL).folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def train(batch: Batch) -> None:
        model.train()
        with autocast():
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def evaluate(batch: Batch) -> None:
        model.eval()
        with torch.inference_mode(), autocast():
            model(**batch)

    return train, evaluate


def seconds(step: Callable[[Batch], None], batch: Batch) -> float:
    started = time.perf_counter()
    step(batch)
    return time.perf_counter() - started


def product_rate(precision: str) -> float:
    """The best rate of a matrix product of this model's sizes, FLOP/s: of torch's two libraries."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, weight, bias = torch.randn(850, 384), torch.randn(1536, 384), torch.randn(1536)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    libraries: list[Callable[[], Any]] = [
        lambda: torch.nn.functional.linear(x, weight, bias),
        lambda: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""),
    ]
    best = 0.0
    for library in libraries:
        with contextlib.suppress(RuntimeError):  # not on every processor
            for _ in range(20):
                started = time.perf_counter()
                library()
                best = max(best, 2 * 850 * 384 * 1536 / (time.perf_counter() - started))
    return best


def product_flops(batch: Batch, layers: int = 6, H: int = 384, inner: int = 1536) -> float:
    """Floating-point operations of a forward pass that a classifier cannot do without.

    Dense layers on the real tokens alone; of the last layer keys and values, and everything else
    at the first position of each row. A backward pass does twice as many.
    """
    lengths = batch["attention_mask"].sum(1)
    P, B = int(lengths.sum()), len(lengths)
    dense = 2 * H * (4 * H + 2 * inner)  # a token through a layer
    attention = 4 * H * int(lengths.square().sum())  # scores, and the sum over values
    return (layers - 1) * (P * dense + attention) + P * 4 * H * H + B * (dense - 4 * H * H)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=15)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    args = parser.parse_args()
    device = choose_device("auto", default_manager())
    threads = torch.get_num_threads()
    print(f"{device.description}, {threads} threads; medians over {args.batches} batches")
    for precision in args.precision:
        rate = product_rate(precision)
        slow = device.precisions().get(precision)
        print(f"{precision}: products reach {rate / 1e9:.0f} GFLOP/s" + (f" ({slow})" * bool(slow)))
        for what, split in (("training", "train"), ("evaluation", "validation")):
            which = int(what == "evaluation")
            a, b = ours(device, precision)[which], peers(precision)[which]
            data = read_batches(split, args.batches)
            a(data[0]), b(data[0])
            taken = [(seconds(a, batch), seconds(b, batch)) for batch in data]
            mine, theirs = (statistics.median(times) for times in zip(*taken, strict=True))
            ratios = sorted(b / a for a, b in taken)
            shares = [
                product_flops(batch) * (1 if which else 3) / rate / time_
                for batch, (time_, _) in zip(data, taken, strict=True)
            ]
            print(
                f"  {what:<10} minift {mine * 1e3:5.0f} ms  peer {theirs * 1e3:5.0f} ms  "
                f"peer / minift {statistics.median(ratios):.2f} ({ratios[0]:.2f} to "
                f"{ratios[-1]:.2f})  of the product limit {statistics.median(shares):.0%}"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
