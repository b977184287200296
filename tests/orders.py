"""Loops written by hand in every order that people use, for tests with one and several processes.

A `Program` says how batches are taken, cut and used; `run` carries it out with an Accelerator,
minift's or the peer's, and returns what can be seen of it. `expected` computes the same with plain
torch and arithmetic: an update after `group` micro-batches, and at the end of an epoch; its
gradient is the mean over all of its rows.
"""

from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader

WAYS = ("plain", "list", "ahead", "slices", "copies")  # of taking batches
PLACES = ("never", "top", "forward", "backward", "end")  # where an evaluation may stand


@dataclass(frozen=True)
class Program:
    """A loop of two epochs.

    Attributes:
        rows, size, group: of the training data, of a batch, micro-batches in an update.
        way: how batches are taken; "slices" and "copies" cut each into parts of `part` rows.
        place: after what in the loop's body an evaluation stands; `leave`: it breaks off early.
        stop: the first epoch is left after so many batches; 0 for never.
        by_logits: the loss is computed outside of the model.
        evaluated: rows of the evaluation.
    """

    rows: int = 20
    size: int = 4
    group: int = 2
    way: str = "plain"
    part: int = 2
    place: str = "never"
    leave: bool = False
    stop: int = 0
    by_logits: bool = False
    evaluated: int = 7


class Model(nn.Module):
    """A regression whose dropout makes visible which random numbers a pass has drawn."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.linear, self.dropout = nn.Linear(3, 1), nn.Dropout(dropout)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.linspace(-0.5, 0.7 - i, p.numel()).view_as(p))

    def forward(self, x, labels):
        logits = self.linear(self.dropout(x))[:, 0]
        return {"logits": logits, "loss": (logits - labels).square().mean()}


def data(n: int) -> list[dict]:
    made = torch.Generator().manual_seed(n)
    x, labels = torch.randn(n, 3, generator=made), torch.randn(n, generator=made)
    return [{"x": x[i], "labels": labels[i], "row": torch.tensor(i)} for i in range(n)]


def taken(program: Program, batches):
    """The loader's batches, in the program's way."""
    if program.way == "list":
        return list(batches)
    return one_ahead(iter(batches)) if program.way == "ahead" else batches


def one_ahead(iterator):
    batch = next(iterator, None)
    while batch is not None:
        following = next(iterator, None)
        yield batch
        batch = following


def parts_of(program: Program, batch):
    n = len(batch["labels"])
    if program.way not in ("slices", "copies"):
        return [batch]
    cuts = [slice(i, i + program.part) for i in range(0, n, program.part)]
    parts = [{name: value[cut] for name, value in batch.items()} for cut in cuts]
    if program.way == "slices":
        return parts
    return [{name: value.clone() for name, value in part.items()} for part in parts]


def evaluate(program: Program, model, batches, gather) -> list[int]:
    """The rows that were gathered."""
    model.eval()
    seen = []
    for batch in batches:
        with torch.no_grad():
            logits = model(batch["x"], batch["labels"])["logits"]
        assert logits.shape == batch["row"].shape
        seen += gather(batch["row"]).tolist()
        if program.leave:
            break
    model.train()
    return seen


def run(program: Program, accelerator, dropout: float = 0.0) -> dict:
    """Carry a program out.

    Returns:
        updates: whether each micro-batch ended an update; rows: of each micro-batch; evaluated: of
        each evaluation; weights: at the end.
    """
    model = Model(dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, training, evaluation = accelerator.prepare(
        model,
        optimizer,
        DataLoader(data(program.rows), program.size),
        DataLoader(data(program.evaluated), 3),
    )
    found: dict = {"updates": [], "rows": [], "evaluated": []}

    def reach(place):
        if place == program.place:
            gather = accelerator.gather_for_metrics
            found["evaluated"].append(evaluate(program, model, evaluation, gather))

    for epoch in range(2):
        batches = taken(program, training)
        for batch in islice(batches, program.stop or None) if epoch == 0 else batches:
            for part in parts_of(program, batch):
                reach("top")
                with accelerator.accumulate(model):
                    outputs = model(part["x"], part["labels"])
                    reach("forward")
                    loss = outputs["loss"]
                    if program.by_logits:
                        loss = (outputs["logits"] - part["labels"]).square().mean()
                    accelerator.backward(loss)
                    reach("backward")
                    optimizer.step()
                    optimizer.zero_grad()
                found["updates"].append(accelerator.sync_gradients)
                found["rows"].append(part["row"].tolist())
        reach("end")
    found["weights"] = [p.detach().flatten().tolist() for p in model.parameters()]
    return found


def expected(program: Program) -> dict:
    """What one process should find, by arithmetic."""
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows, updates, waiting = [], [], []
    everything = data(program.rows)
    for epoch in range(2):
        batches = [
            range(program.rows)[i : i + program.size] for i in range(0, program.rows, program.size)
        ]
        done = program.stop or None if epoch == 0 else None
        for number, batch in enumerate(batches[:done], start=1):
            cut = program.part if program.way in ("slices", "copies") else program.size
            parts = [batch[i : i + cut] for i in range(0, len(batch), cut)]
            for i, part in enumerate(parts, start=1):
                rows.append(list(part))
                waiting.append(list(part))
                ends = number == len(batches) and i == len(parts)
                updates.append(len(waiting) == program.group or ends)
                if updates[-1]:
                    chosen = [everything[row] for group in waiting for row in group]
                    x, labels = (torch.stack([one[k] for one in chosen]) for k in ("x", "labels"))
                    optimizer.zero_grad()
                    model(x, labels)["loss"].backward()
                    optimizer.step()
                    waiting = []
    weights = [p.detach().flatten().tolist() for p in model.parameters()]
    return {"updates": updates, "rows": rows, "weights": weights}
