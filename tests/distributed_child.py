"""What each process does in `test_distributed.py`: torchrun starts it, or nobody for one process.

    torchrun --nproc-per-node 2 distributed_child.py PART MODEL FOLDER '{"setting": ...}'

It writes FOLDER/PART-RANK.json.
"""

import functools
import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import orders
import torch
from tiny import count, load, make_rows
from torch.utils.data import DataLoader, DistributedSampler, WeightedRandomSampler

from minift import (
    Accelerator,
    AdamW,
    AutoTokenizer,
    DataCollatorWithPadding,
    Dataset,
    Trainer,
    TrainingArguments,
    distributed,
    get_scheduler,
    set_seed,
)
from minift.device import choose_device
from minift.errors import MiniftError
from minift.optim import parameter_groups
from minift.plugins import default_manager
from minift.training import batches as training_batches

SETTINGS = {
    "max_steps": 20,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "device": "cpu",
    "precision": "fp32",
}
ROWS, EVALUATED, SEED = 49, 21, 42  # in updates of 16 the last has one row; in twos the last is odd
MODEL_SEED = 3


def data(model: Path, n: int, seed: int) -> Dataset:
    """Tokenized rows, by a map that counts its calls."""
    tokenizer = AutoTokenizer.from_pretrained(model)

    def tokenize(batch):
        count()
        return tokenizer(batch["sentence1"], batch["sentence2"])

    mapped = Dataset.from_dict(make_rows(n, seed)).map(tokenize, batched=True)
    return mapped.remove_columns(["sentence1", "sentence2"]).rename_column("label", "labels")


def digest(model) -> str:
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def train(model: Path, folder: Path, rows: int = ROWS, **settings) -> dict:
    """A Trainer's run: which rows each update had, what was logged, what it predicts."""
    seen, own = [], training_batches.share_of_rank
    network = load(model, seed=MODEL_SEED)
    if os.environ.get("RANK") == "1":
        torch.nn.init.ones_(network.classifier.weight)  # process 0's weights count

    def recorded(run, group):
        parts, weight = own(run, group)
        seen.append(np.concatenate(parts).tolist() if weight else [])
        return parts, weight

    training_batches.share_of_rank = recorded
    trainer = Trainer(
        network,
        TrainingArguments(str(folder / "run"), **{**SETTINGS, **settings}),
        train_dataset=data(model, rows, 0),
        eval_dataset=data(model, EVALUATED, 1),
        processing_class=AutoTokenizer.from_pretrained(model),
        compute_metrics="accuracy",
    )
    trainer.train()
    training_batches.share_of_rank = own
    records = [r for r in trainer.state.log_history if "grad_norm" in r]
    predicted = trainer.predict(trainer.run.eval_dataset)
    return {
        "rows": seen,
        "losses": [r["loss"] for r in records],
        "norms": [r["grad_norm"] for r in records],
        "weights": digest(trainer.model),
        "logits": predicted.predictions.tolist(),
        "labels": predicted.label_ids.tolist(),
        "metrics": {n: predicted.metrics[n] for n in ("test_loss", "test_accuracy")},
        "ran": trainer.run.device.world_size,
    }


class Extended(Trainer):
    """Class weights, most rows drawn several times, a file beside each saved model."""

    sharded = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, weight = inputs.pop("labels"), torch.tensor([1.0, 3.0])
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(outputs.logits, labels, weight, reduction="sum")
        loss = loss / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self):
        chances, data = torch.arange(1.0, 1 + len(self.train_dataset)), self.train_dataset
        sampler = WeightedRandomSampler(chances, 45)
        if self.sharded:
            sampler = DistributedSampler(data, distributed.world_size(), distributed.rank())
        size = self.args.per_device_train_batch_size
        return DataLoader(data, size, sampler=sampler, collate_fn=self.data_collator)

    def save_model(self, output_dir=None, _internal_call=False):
        super().save_model(output_dir, _internal_call)
        if distributed.rank() == 0:
            (Path(output_dir) / "note.txt").write_text(str(self.state.global_step))


def extended(model: Path, folder: Path, size: int = 8, sharded: bool = False) -> dict:
    """A run of a Trainer that somebody extended, or the error that it ends with."""
    settings = {"max_steps": 6, "per_device_train_batch_size": size, "save_strategy": "epoch"}
    trainer = Extended(
        load(model, seed=MODEL_SEED),
        TrainingArguments(str(folder / "extended"), **{**SETTINGS, **settings}),
        train_dataset=data(model, ROWS, 0),
        eval_dataset=data(model, EVALUATED, 1),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.sharded = sharded
    try:
        trainer.train()
    except MiniftError as error:
        return {"error": str(error)}
    trainer.save_model(folder / "saved")
    records = [r for r in trainer.state.log_history if "grad_norm" in r]
    return {
        "losses": [r["loss"] for r in records],
        "norms": [r["grad_norm"] for r in records],
        "weights": digest(trainer.model),
        "eval_loss": trainer.evaluate()["eval_loss"],
        "notes": [path.read_text() for path in sorted(folder.rglob("note.txt"))],
    }


def by_hand(model: Path, folder: Path, size: int = 8, steps: int = 20) -> dict:
    """The same loop written with an Accelerator, and an evaluation with gather_for_metrics."""
    accelerator = Accelerator(device="cpu")
    set_seed(SEED)
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(model))
    batches = DataLoader(data(model, ROWS, 0), shuffle=True, batch_size=size, collate_fn=collate)
    scored = DataLoader(data(model, EVALUATED, 1), batch_size=2, collate_fn=collate)
    network = load(model, seed=MODEL_SEED)
    optimizer = AdamW(parameter_groups(network, 0.0), lr=1e-3)
    # A prepared scheduler goes on by one for each process, as in accelerate.
    scheduler = get_scheduler("linear", optimizer, 0, steps * accelerator.num_processes)
    batches, scored, network, optimizer, scheduler = accelerator.prepare(
        batches, scored, network, optimizer, scheduler
    )
    network.train()
    while optimizer.updates < steps:
        for batch in batches:
            accelerator.backward(network(**batch))
            accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if optimizer.updates == steps:
                break
    network.eval()
    labels = []
    for batch in scored:
        with torch.no_grad():
            logits = network(**batch).logits
        labels.append(accelerator.gather_for_metrics({"labels": batch["labels"], "x": logits}))
    accelerator.save_state(folder / "state")
    accelerator.load_state(folder / "state")
    return {
        "weights": digest(accelerator.unwrap_model(network)),
        "labels": torch.cat([one["labels"] for one in labels]).tolist(),
        "logits": torch.cat([one["x"] for one in labels]).tolist(),
        "processes": accelerator.num_processes,
    }


def by_order(model: Path, folder: Path, programs: list, scale: int = 1) -> dict:
    """Loops in many orders of their parts, with `scale` times as many rows in a batch."""
    programs = [{**one, "size": one.get("size", 4) * scale} for one in programs]
    programs = [orders.Program(**{**one, "part": 2 * scale}) for one in programs]
    found = [orders.run(one, Accelerator(one.group, device="cpu")) for one in programs]
    return {
        "found": found,
        "rates": [rate_at_the_end(made_before) for made_before in (True, False)],
    }


def rate_at_the_end(prepared: bool) -> float:
    """The rate after an epoch, of a scheduler whose length was taken before `prepare` or after."""
    accelerator, network = Accelerator(device="cpu"), orders.Model()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    batches = DataLoader(orders.data(26), 4)
    if prepared:
        scheduler = get_scheduler("linear", optimizer, 0, len(batches))
        parts = accelerator.prepare(network, optimizer, batches, scheduler)
        network, optimizer, batches, scheduler = parts
    else:
        network, optimizer, batches = accelerator.prepare(network, optimizer, batches)
        scheduler = get_scheduler("linear", optimizer, 0, len(batches))
    for batch in batches:
        accelerator.backward(network(batch["x"], batch["labels"])["loss"])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return scheduler.get_last_lr()[0]


def sums(model: Path, folder: Path, refuse: bool = False) -> dict:
    """Vectors summed by a CpuDevice, against their sum in the order of the processes."""
    device = choose_device("cpu", default_manager())
    if refuse and device.rank == 1:
        torch.from_file = refused
    device.prepare(torch.nn.Linear(20_000, 10))
    right, room = [], 200_010
    generator = torch.Generator().manual_seed(device.rank)
    for n in (1, 5, 100_000, 300_000, 7):  # one of them is more than there is room for
        parts = [torch.randn(n, generator=generator) * 100, torch.ones(2) * device.rank]
        if n > room:  # torch adds up in another order
            parts[0].round_()
        for dtype in (torch.float32, torch.int32, torch.float64):
            given = [part.to(dtype) for part in parts]
            blocks = distributed.all_gather(torch.cat(given)[None])
            right.append(
                torch.equal(device.all_reduce_flat(given), functools.reduce(torch.add, blocks))
            )
            right.append(torch.equal(torch.cat(given), blocks[device.rank]))  # as they were
    opened = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.exists()]
    return {
        "right": right,
        "shared": device.shared_sum.size == room,
        "in the way": [name for name in opened if "minift" in name],
    }


def refused(*args, **options):
    raise RuntimeError("not allowed")


def leave_early(model: Path, folder: Path) -> dict:
    """End while a thread of torch's still holds the last tensor."""
    distributed.init_process_group()
    for _ in range(300):
        torch.distributed.all_reduce(torch.ones(1000), async_op=True)
    return {}


PARTS = {
    "train": train,
    "by_hand": by_hand,
    "by_order": by_order,
    "extended": extended,
    "sums": sums,
    "leave_early": leave_early,
}


def main(part: str, model: str, folder: str, settings: dict) -> None:
    torch.set_num_threads(1)
    for name in part.split("+"):
        found = PARTS[name](Path(model), Path(folder), **settings.get(name, {}))
        path = Path(folder) / f"{name}-{os.environ.get('RANK', '0')}.json"
        path.write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], json.loads(sys.argv[4]))
