"""Progress of a hand-written loop: which batch a loss is of, and where in an update the loop is.

People take batches in many ways: as a list, one ahead, in slices, with an evaluation in between. So
it is the tensors that say which batch they are of. A prepared loader marks those that it hands out;
a prepared model's forward finds the mark in its arguments and puts it on its outputs, where
`backward` and `gather_for_metrics` find it. What was computed without a mark is taken to be of the
batch that was used last; and an evaluation inside of a loop leaves that as it was.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from minift import rng
from minift.device import Device

# {tensor: its Batch}. Not an attribute of the tensor, which would be copied and pickled with it.
MARKS = WeakIdKeyDictionary()


@dataclass(eq=False)
class Batch:
    """A batch that a prepared loader has handed out, or a slice of it.

    Attributes:
        loader: the PreparedLoader.
        epoch: of the loader.
        rows: of the slice; `size`: of the batch, in this process.
        counts: False if the rows are another process's, and only stand in.
        last: it is the last batch of its epoch.
        done: [how many of its rows have been trained on], shared by its slices.
    """

    loader: Any
    epoch: int
    rows: int
    size: int
    counts: bool
    last: bool
    done: list[int] = field(default_factory=lambda: [0])


@dataclass
class GradientState:
    """Which batch, which micro-batch of an update, and which update the loop is at.

    Attributes:
        seed: of the random streams.
        sync_gradients: the current micro-batch ends its update.
        micro_batches: micro-batches of the current update so far, with `accumulate`.
        current: the batch that was handed out, or given to a model, last.
        drawing_update: the update whose dropout masks were drawn last.
        optimizers: those that are prepared.
    """

    seed: int = 0
    sync_gradients: bool = True
    micro_batches: int = 0
    current: Batch | None = None
    drawing_update: int = -1
    optimizers: list[Any] = field(default_factory=list)

    def seed_generator(self, device: Device, purpose: str) -> None:
        """Start a random stream of the next update, unless a model has drawn from one already.

        "dropout" starts with the first forward pass that trains, as in the Trainer's loop, however
        early its batch was taken. Until then, "batch" is for what a sampler or a collator draws.
        """
        update = sum(one.updates for one in self.optimizers)
        if self.drawing_update != update:
            stream = update * device.world_size + device.rank
            device.seed(rng.derive(self.seed, purpose, stream))
        if purpose == "dropout":
            self.drawing_update = update


def mark(values: Any, batch: Batch | None) -> None:
    """Note which batch tensors are of."""
    map_tensors(lambda x: MARKS.update({x: batch}), values)


def find_batch(values: Any, default: Batch | None) -> Batch | None:
    """Return the batch that tensors are of, or the slice of it.

    The first tensor that has a mark says it, or that is a view of one; if the view has fewer rows,
    it is a slice. Without marks, tensors are taken for copies from the default or a slice of it.
    """
    tensors: list[Tensor] = []
    map_tensors(tensors.append, values)
    owners = [x if x in MARKS or x._base is None else x._base for x in tensors]
    marked = [pair for pair in zip(tensors, owners, strict=True) if MARKS.get(pair[1])]
    x, owner = marked[0] if marked else (next(filter(Tensor.dim, tensors), None), None)
    batch = default if owner is None else MARKS[owner]
    if batch is None or x is None or (owner is not None and x.numel() == owner.numel()):
        return batch
    n = min(len(x) if x.dim() else 1, batch.size)
    return batch if n == batch.rows == batch.size else replace(batch, rows=n)


def map_tensors(function: Callable[[Tensor], Any], values: Any) -> Any:
    """Apply a function to each tensor in nested lists, tuples, dicts and dataclasses."""
    if isinstance(values, Tensor):
        return function(values)
    if hasattr(values, "__dataclass_fields__"):
        values = copy.copy(values)
        vars(values).update(map_tensors(function, vars(values)))
        return values
    if isinstance(values, dict):
        return {name: map_tensors(function, value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        parts = [map_tensors(function, value) for value in values]
        return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)
    return values
