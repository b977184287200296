"""What `Accelerator.prepare` gives back: a loader, an optimizer and a scheduler in step.

They stand in for the user's own, which they hold, and ask the Accelerator where the loop is: which
micro-batch of a group, which update.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from minift import rng
from minift.errors import ArgumentError, ConfigError
from minift.training.batches import row_order, split_into_batches

if TYPE_CHECKING:
    from minift.accelerate.accelerator import Accelerator

# How a DataLoader makes its batches, apart from their order.
MANNERS = (
    *("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor"),
)


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
        begun: whether some of its batches, and not all, have been handed out.
    """

    def __init__(self, loader: DataLoader[Any], accelerator: "Accelerator") -> None:
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            what = "a prepared DataLoader needs batches that can be found by number"
            raise ArgumentError(what, do="use a dataset with a length, and a batch_size")
        self.dataset, self.loader, self.accelerator = loader.dataset, loader, accelerator
        sampler = getattr(loader.batch_sampler, "sampler", None)
        own = getattr(sampler, "generator", None)
        self.without_generator = own is None and hasattr(sampler, "generator")
        self.seed = accelerator._seed if own is None else own.initial_seed()
        self.epoch, self.begun = 0, False

    def __len__(self) -> int:
        return math.ceil(len(self.loader) / self.accelerator.num_processes)

    def __getattr__(self, name: str) -> Any:  # batch_size, sampler, collate_fn...
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.batches()

    def batches(self, skip: int = 0) -> Iterator[dict[str, Any]]:
        """The next epoch's batches from number `skip` on."""
        epoch = self.epoch + self.begun
        accelerator, sizes = self.accelerator, deque[int]()
        accelerator._before_batch()  # also for what a sampler draws
        shares = list(islice(self.shares(epoch), skip, None))
        plan = [rows for rows, _ in shares]
        stream = accelerator._device.batches(counted(self.loaded(epoch, plan), sizes))
        for number, (_, real) in enumerate(shares, skip):
            accelerator._before_batch()  # also for what a collator draws
            batch = next(stream)
            last = number + 1 == len(self)
            self.epoch, self.begun = epoch + last, not last
            accelerator._batch += 1
            accelerator._rows, accelerator._at_end = sizes.popleft() * real, last
            yield batch

    def loaded(self, epoch: int, plan: Any) -> Iterator[Any]:
        """The batches of a plan, in host memory."""
        # torch draws a seed for workers whenever a DataLoader is iterated, from the generator that
        # dropout uses, unless it is given another.
        own = rng.torch_generator(self.seed, "workers", epoch)
        manner = {name: getattr(self.loader, name) for name in MANNERS}
        stream = DataLoader(self.dataset, batch_sampler=plan, generator=own, **manner)
        yield from map(self.accelerator._with_unpadding, stream)

    def shares(self, epoch: int) -> Iterator[tuple[list[int], bool]]:
        """This process's rows of each batch; False marks a row of others, where it has none."""
        ranks, plan = self.accelerator.num_processes, iter(self.plan(epoch))
        while at_once := [int(row) for rows in islice(plan, ranks) for row in rows]:
            own = np.array_split(at_once, ranks)[self.accelerator.process_index].tolist()
            yield own or at_once[:1], bool(own)

    def plan(self, epoch: int) -> Iterator[Sequence[int]]:
        """The row numbers of an epoch's batches, as the DataLoader cuts them."""
        cut: Any = self.loader.batch_sampler
        sampler: Any = getattr(cut, "sampler", None)
        n = len(self.dataset)  # type: ignore[arg-type]
        shuffles = isinstance(sampler, RandomSampler) and not sampler.replacement
        if not shuffles or len(sampler) != n:
            if self.without_generator:  # else it draws from the one that dropout uses
                sampler.generator = rng.torch_generator(self.seed, "order", epoch)
            return iter(cut)
        order = row_order(n, self.seed, epoch)
        return (rows.tolist() for rows in split_into_batches(order, cut.batch_size, cut.drop_last))


@dataclass
class Rest:
    """What `skip_first_batches` returns."""

    loader: PreparedLoader
    skip: int

    def __len__(self) -> int:
        return max(0, len(self.loader) - self.skip)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.loader.batches(self.skip)


class PreparedOptimizer(Optimizer):
    """An optimizer that steps once for each accumulation group, by the mean over its items.

    It holds no parameters of its own: groups and state are those of `optimizer`. It is an
    `Optimizer` because torch's schedulers take nothing else.

    Attributes:
        optimizer: as it was given to `prepare`.
        count: how many items the gradients are a sum over; None: there are none.
        updates: times that it stepped; `taken`: those that fp16 did not leave out.
        step_was_skipped: whether the last one was left out, as gradients overflowed in fp16.
    """

    def __init__(self, optimizer: Optimizer, accelerator: "Accelerator") -> None:
        self.optimizer, self.accelerator = optimizer, accelerator
        self.updates = self.taken = 0
        self.step_was_skipped = False
        self.forget()

    def __getattr__(self, name: str) -> Any:  # param_groups, state, defaults
        return getattr(self.__dict__["optimizer"], name)

    def forget(self) -> None:
        self.count: Any = None
        self.batch = 0  # the number of the batch that was counted last
        self.divided = False  # whether the sums have become means

    def add(self, count: Any, again: bool) -> None:
        """Note that there are gradients of `count` items, which may be the same ones `again`."""
        if self.count is None:
            self.count = count
        elif not again:
            self.count = self.count + count

    def divide(self, max_norm: float = 0) -> Tensor:
        """Make means of the summed gradients, clipped; the norm before clipping."""
        if self.divided:
            raise ConfigError("the gradient of this update was clipped already")
        if self.count is None:
            what = "the optimizer has no gradient to step by"
            raise ConfigError(what, do="call accelerator.backward(loss), not loss.backward()")
        self.divided, device = True, self.accelerator._device
        where, count = device.torch_device, self.count
        if not isinstance(count, Tensor):  # made there: sending a number would wait
            count = torch.full((), float(count), device=where)
        count = count.to(where, torch.float32)
        return device.clip_grad_norm(self.optimizer, max_norm, device.all_reduce(count))

    def step(self) -> None:  # type: ignore[override]
        """Update the parameters, if the accumulation group is complete."""
        if not self.accelerator.sync_gradients:
            return
        if not self.divided:
            self.divide()
        taken = self.accelerator._device.step(self.optimizer)
        self.step_was_skipped = not taken
        self.updates, self.taken = self.updates + 1, self.taken + taken
        self.forget()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, but never those that wait in an unfinished group."""
        accelerator = self.accelerator
        grouped = accelerator._micro > 1 or not accelerator.sync_gradients
        if self.count is None or not grouped:
            self.optimizer.zero_grad(set_to_none)
            self.forget()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.optimizer.add_param_group(param_group)


class PreparedScheduler:
    """A scheduler that goes on by one with each update that was made, and not otherwise."""

    def __init__(self, scheduler: LRScheduler, optimizer: PreparedOptimizer) -> None:
        self.scheduler, self.optimizer = scheduler, optimizer
        self.seen = optimizer.taken  # updates that it knows of

    def __getattr__(self, name: str) -> Any:  # get_last_lr, last_epoch...
        return getattr(self.__dict__["scheduler"], name)

    def step(self, *metrics: Any) -> None:
        """Call it after `optimizer.step()`, as always."""
        if self.optimizer.taken > self.seen:
            self.seen = self.optimizer.taken
            self.scheduler.step(*metrics)


def counted(stream: Iterable[Any], sizes: deque[int]) -> Iterator[dict[str, Any]]:
    """Batches, and their numbers of rows: a device may be some batches ahead of the loop."""
    for batch in stream:
        if not hasattr(batch, "items"):
            what = "a prepared DataLoader gives dicts of tensors"
            raise ArgumentError(what, got=type(batch).__name__, do="pass another collate_fn to it")
        sizes.append(len(next(iter(batch.values()))))
        yield batch
