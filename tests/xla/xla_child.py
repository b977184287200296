"""A run on a device, as a process of its own: `python xla_child.py '{"device": "xla", ...}'`.

SPMD has to be switched on before anything is computed, so the number of virtual devices
(CPU_NUM_DEVICES) is a process's. Prints what came of the run as JSON.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("PJRT_DEVICE", "CPU")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from tiny import edit_config, load, make_model

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Dataset,
    Trainer,
    TrainingArguments,
    hookimpl,
    load_dataset,
)
from minift.plugins import resolve_checkpoint

QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Counted:
    """The device's counters after each step."""

    def __init__(self) -> None:
        self.steps: list[dict] = []

    @hookimpl
    def minift_on_train_begin(self, run) -> None:
        self.start = run.device.counters()

    @hookimpl
    def minift_on_step_end(self, run) -> None:
        self.steps.append(run.device.counters())
        self.fallbacks = fallbacks()
        known = [dict(shapes)["input_ids"] for shapes in getattr(run.device, "shapes", ())]
        self.shapes = sorted(known)


def real(folder: Path, rows: int, max_length: int):
    """all-MiniLM-L6-v2 without dropout, and headlines with paragraphs."""
    source = resolve_checkpoint("all-MiniLM-L6-v2").folder
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes()) if path.is_file() else None
    edit_config(folder, **QUIET)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data = load_dataset("headlines")["train"].select(range(rows))
    data = data.map(
        lambda b: tokenizer(b["sentence1"], b["sentence2"], truncation=True, max_length=max_length),
        batched=True,
    )
    return AutoModelForSequenceClassification.from_pretrained(folder, seed=1), tokenizer, data


def tiny(folder: Path, rows: int, longest: int):
    """A tiny model, and rows of all lengths to the longest."""
    make_model(folder, max_position_embeddings=128, **QUIET)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lengths = np.random.default_rng(0).integers(4, longest + 1, rows)
    ids = [[2, *[5 + (i * 7 + j) % 40 for j in range(n - 2)], 3] for i, n in enumerate(lengths)]
    columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    data = Dataset.from_dict({**columns, "labels": [i % 2 for i in range(rows)]})
    return load(folder, seed=1), tokenizer, data


def main(said: dict) -> dict:
    folder = Path(tempfile.mkdtemp())
    make = real if said.pop("real", False) else tiny
    rows, longest = said.pop("rows", 52), said.pop("longest", 60)
    model, tokenizer, data = make(folder, rows, longest)
    settings = {"learning_rate": 1e-3, "logging_steps": 1, "precision": "fp32", "output_dir": None}
    counted = Counted()
    trainer = Trainer(
        model,
        TrainingArguments(**{**settings, **said}),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        callbacks=[counted],
    )
    trainer.train()
    records = [r for r in trainer.state.log_history if "grad_norm" in r]
    weights = trainer.run.device.to_host(dict(trainer.model.named_parameters()))
    return {
        "kind": trainer.run.device.description,
        "losses": [r["loss"] for r in records],
        "norms": [r["grad_norm"] for r in records],
        "logged": len(records),
        "start": counted.start,
        "steps": counted.steps,
        "evaluated": trainer.evaluate()["eval_loss"],
        "weights": {n: float(w.double().square().sum()) for n, w in weights.items()},
        "shapes": counted.shapes,
        "fallbacks": counted.fallbacks,
        "sharding": sharding(trainer.run.device),
    }


def sharding(device) -> str:
    """How a batch of eight rows lies on the devices, as XLA says it."""
    if "torch_xla" not in sys.modules:
        return ""
    import torch_xla

    block = torch.ones(8, 32, dtype=torch.int64)
    (batch,) = device.batches([{"input_ids": block, "attention_mask": block}], 8)
    return torch_xla._XLAC._get_xla_sharding_spec(batch["input_ids"])


def fallbacks() -> list[str]:
    """Operations that XLA could not do, so that they were done on the host."""
    if "torch_xla" not in sys.modules:
        return []
    import torch_xla.debug.metrics as met

    return [name for name in met.counter_names() if name.startswith("aten::")]


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(main(json.loads(sys.argv[1]))))
