"""What `Accelerator.prepare` returns: a loader, an optimizer and a scheduler in step.

They hold the user's own, and share a `GradientState`: which batch a loss is of, and where in an
update the loop is. People take batches in many ways: as a list, one ahead, in slices, with an
evaluation in between. So it is the tensors that say which batch they are of. A prepared loader
marks those that it hands out; a prepared model's forward finds the mark in its arguments and puts
it on its outputs, where `backward` and `gather_for_metrics` find it. What was computed without a
mark is taken to be of the batch that was used last; and an evaluation inside of a loop leaves that
as it was.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.weak import WeakIdKeyDictionary

from minift import rng
from minift.device import Device
from minift.errors import ArgumentError, ConfigError
from minift.training.batches import loader_batches

# The settings of a DataLoader that do not decide which rows are in a batch.
LOADER_SETTINGS = ["collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn"]
LOADER_SETTINGS += ["multiprocessing_context", "prefetch_factor"]
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


# --------------------------------------------------------------------------- what is prepared


class PreparedLoader:
    """A DataLoader's batches on the device.

    Each iteration is an epoch, so evaluate on a loader of its own; one that is left early is not
    taken up again. If the DataLoader shuffles, the order of epoch e is that of the Trainer,
    `row_order(n, seed, e)`, whatever was drawn or interrupted before; other samplers are asked as
    they are. Several processes take as many batches at a time, and share their rows out in order.

    Attributes:
        seed: the Accelerator's, or that of the generator that the DataLoader was made with.
        dataset: the DataLoader's.
        epoch: which one an iteration from the saved state has to be.
        begun: some batches of the epoch, and not all, have been used.
        largest: rows of the epoch's largest batch.
    """

    def __init__(
        self, loader: DataLoader[Any], device: Device, state: GradientState,
        add_unpadding: Callable[[Any], Any],
    ) -> None:  # fmt: skip
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            what = "a prepared DataLoader needs batches that can be found by number"
            raise ArgumentError(what, do="use a dataset with a length, and a batch_size")
        self.dataset: Any = loader.dataset
        self.loader = loader
        self.device, self.state, self.add_unpadding = device, state, add_unpadding
        generator = getattr(getattr(loader.batch_sampler, "sampler", None), "generator", None)
        self.seed = state.seed if generator is None else generator.initial_seed()
        self.epoch, self.begun, self.largest = 0, False, 0

    def __len__(self) -> int:
        return math.ceil(len(self.loader) / self.device.world_size)

    def __getattr__(self, name: str) -> Any:  # batch_size, sampler, collate_fn...
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.batches()

    def batches(self, skip: int = 0) -> Iterator[dict[str, Any]]:
        """Give the next epoch's batches from number `skip` on."""
        epoch, state = self.epoch + self.begun, self.state
        outer = state.current  # the batch of a loop around this one
        shares = list(islice(self.shares_of_rank(epoch), skip, None))
        plan = [rows for rows, _ in shares]
        self.largest = max(map(len, plan), default=0)
        batches = self.device.batches(self.host_batches(epoch, plan))
        try:
            for number, (_, counts) in enumerate(shares, start=1):
                state.seed_generator(self.device, "batch")  # for what a collator draws
                values, last = next(batches), number == len(shares)
                # Tensors of its own: the DataLoader may give one in several batches.
                values = {k: v.detach() if isinstance(v, Tensor) else v for k, v in values.items()}
                n = len(next(iter(values.values())))
                state.current = Batch(self, epoch, n, n, counts, last)
                mark(values, state.current)
                self.epoch, self.begun = epoch + last, not last
                yield values
        finally:  # also if the loop breaks
            current, n = state.current, self.largest
            if current is not None and current.loader is self:
                ended = replace(current, rows=n, size=n, counts=True, last=False)
                state.current = outer or ended

    def train_on(self, batch: Batch, again: bool) -> bool:
        """Note that a batch is trained on, `again` in this update; return whether the epoch ends.

        The loop may be far behind what it has taken, and may use a batch again and again.
        """
        if not again:
            batch.done[0] = batch.done[0] % batch.size + batch.rows
        if batch.epoch + 1 == self.epoch + self.begun:
            self.epoch, self.begun = batch.epoch + batch.last, not batch.last
        return batch.last and batch.done[0] >= batch.size

    def skip(self, num_batches: int) -> "SkippedLoader":
        return SkippedLoader(self, num_batches)

    def host_batches(self, epoch: int, plan: list[list[int]]) -> Iterator[Any]:
        """Give the batches of a plan, in host memory."""
        # torch draws a seed for workers whenever a DataLoader is iterated, from the generator that
        # dropout uses, unless it is given another.
        generator = rng.torch_generator(self.seed, "workers", epoch)
        settings = {name: getattr(self.loader, name) for name in LOADER_SETTINGS}
        for batch in DataLoader(self.dataset, batch_sampler=plan, generator=generator, **settings):
            if not hasattr(batch, "items"):
                what = "a prepared DataLoader gives dicts of tensors"
                raise ArgumentError(what, got=type(batch).__name__, do="pass another collate_fn")
            yield self.add_unpadding(batch)

    def shares_of_rank(self, epoch: int) -> Iterator[tuple[list[int], bool]]:
        """Give this process's rows of each batch; False marks one that is another process's."""
        ranks, plan = self.device.world_size, iter(loader_batches(self.loader, self.seed, epoch))
        while at_once := [int(row) for rows in islice(plan, ranks) for row in rows]:
            share = np.array_split(at_once, ranks)[self.device.rank].tolist()
            yield share or at_once[:1], bool(share)


@dataclass
class SkippedLoader:
    """A prepared loader without its first batches, as `skip_first_batches` returns it."""

    loader: PreparedLoader
    num_batches: int

    def __len__(self) -> int:
        return max(0, len(self.loader) - self.num_batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.loader.batches(self.num_batches)


class PreparedOptimizer(Optimizer):
    """An optimizer that steps once an update, by the mean over all items of its micro-batches.

    It holds no parameters of its own: groups and state are those of `optimizer`. It is an
    `Optimizer` because torch's schedulers take nothing else.

    Attributes:
        optimizer: as it was given to `prepare`.
        count: how many items the gradients are a sum over; None: they have been divided by it.
        counted: the batch that was counted last, and in which micro-batch; None: no gradients.
        updates: steps so far; `applied_updates`: without those that fp16 left out.
        step_was_skipped: gradients overflowed in fp16, so that the last step was left out.
    """

    def __init__(self, optimizer: Optimizer, device: Device, state: GradientState) -> None:
        self.optimizer, self.device, self.shared_state = optimizer, device, state
        self.count: Any = 0
        self.counted: Any = None
        self.updates, self.applied_updates, self.step_was_skipped = 0, 0, False
        state.optimizers.append(self)
        # Methods that an Optimizer has, so that `__getattr__` is not asked for them.
        for name in ("state_dict", "load_state_dict", "add_param_group"):
            setattr(self, name, getattr(optimizer, name))

    def __getattr__(self, name: str) -> Any:  # param_groups, state, defaults
        return getattr(self.__dict__["optimizer"], name)

    def clear(self) -> None:
        self.count, self.counted = 0, None

    def add(self, count: Any, counted: Any, several_losses: bool) -> None:
        """Count the items of a backward pass; with several losses of the same rows, only once."""
        if not (several_losses and self.counted == counted):
            self.count = self.count + count
        self.counted = counted

    def divide_and_clip(self, max_norm: float = 0) -> Tensor:
        """Turn summed gradients into mean ones of at most this norm; return the norm before."""
        if self.count is None:
            raise ConfigError("the gradient of this update was clipped already")
        if self.counted is None or not any(self.gradient_versions()):
            what = "the optimizer has no gradient to step by, or its parameters are not the model's"
            raise ConfigError(what, do="call accelerator.backward(loss), not loss.backward()")
        count, self.count, where = self.count, None, self.device.torch_device
        if not isinstance(count, Tensor):  # made on the device: sending a number would wait
            count = torch.full((), float(count), device=where)
        count = self.device.all_reduce(count.to(where, torch.float32))
        return self.device.clip_grad_norm(self.optimizer, max_norm, count)

    def gradient_versions(self) -> list[int]:
        """Return how often each gradient was written, 0 if there is none."""
        params = [p for group in self.param_groups for p in group["params"]]
        return [0 if p.grad is None else 1 + p.grad._version for p in params]

    def step(self) -> None:  # type: ignore[override]
        """Update the parameters, if this micro-batch ends its update."""
        idle = self.counted is None and not any(self.gradient_versions())
        if not self.shared_state.sync_gradients or (idle and len(self.shared_state.optimizers) > 1):
            return  # with several optimizers, it may be another's turn
        if self.count is not None:
            self.divide_and_clip()
        torch.clear_autocast_cache()  # it has the old weights, should autocast be around the loop
        applied = self.device.step(self.optimizer)
        self.step_was_skipped = not applied
        self.updates += 1
        self.applied_updates += applied
        self.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, except those of an unfinished update."""
        state = self.shared_state
        if self.counted is None or (state.sync_gradients and state.micro_batches <= 1):
            self.optimizer.zero_grad(set_to_none)
            self.clear()


class PreparedScheduler:
    """A scheduler that goes on with the updates that were made, and not otherwise.

    Its length was taken from a DataLoader, of which each of several processes gets a share; so it
    goes on by one for each process, as in accelerate. One that is not called after every update,
    but once an epoch or an evaluation, goes on by one.
    """

    def __init__(self, scheduler: LRScheduler, optimizer: PreparedOptimizer) -> None:
        self.scheduler, self.optimizer = scheduler, optimizer
        self.seen_updates = optimizer.applied_updates

    def __getattr__(self, name: str) -> Any:  # get_last_lr, last_epoch...
        return getattr(self.__dict__["scheduler"], name)

    def step(self, *metrics: Any) -> None:
        """Call it after `optimizer.step()`, as always."""
        updates = self.optimizer.applied_updates - self.seen_updates
        self.seen_updates += updates
        for _ in range(self.optimizer.device.world_size if updates == 1 else min(updates, 1)):
            if self.scheduler.last_epoch < getattr(self.scheduler, "total_steps", math.inf):
                self.scheduler.step(*metrics)
