"""What `Accelerator.prepare` returns: a loader, an optimizer and a scheduler in step.

They hold the user's own, and read from the shared `GradientState` where the loop is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from minift import rng
from minift.accelerate.gradient_state import GradientState, GradientSum
from minift.device import Device
from minift.errors import ArgumentError, ConfigError
from minift.training.batches import row_order, split_into_batches

# The settings of a DataLoader that do not decide which rows are in a batch.
LOADER_SETTINGS = (
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
        begun: some batches of the epoch, and not all, have been handed out.
    """

    def __init__(
        self, loader: DataLoader[Any], device: Device, state: GradientState,
        add_unpadding: Callable[[Any], Any],
    ) -> None:  # fmt: skip
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            what = "a prepared DataLoader needs batches that can be found by number"
            raise ArgumentError(what, do="use a dataset with a length, and a batch_size")
        self.dataset, self.loader = loader.dataset, loader
        self.device, self.state, self.add_unpadding = device, state, add_unpadding
        sampler = getattr(loader.batch_sampler, "sampler", None)
        generator = getattr(sampler, "generator", None)
        self.lacks_generator = generator is None and hasattr(sampler, "generator")
        self.seed = state.seed if generator is None else generator.initial_seed()
        self.epoch, self.begun = 0, False

    def __len__(self) -> int:
        return math.ceil(len(self.loader) / self.device.world_size)

    def __getattr__(self, name: str) -> Any:  # batch_size, sampler, collate_fn...
        return getattr(self.__dict__["loader"], name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.batches()

    def batches(self, skip: int = 0) -> Iterator[dict[str, Any]]:
        """Give the next epoch's batches from number `skip` on."""
        epoch = self.epoch + self.begun
        sizes = deque[int]()  # a device may be some batches ahead of the loop
        self.seed_dropout()  # also for what a sampler draws
        shares = list(islice(self.shares_of_rank(epoch), skip, None))
        plan = [rows for rows, _ in shares]
        on_device = self.device.batches(record_sizes(self.host_batches(epoch, plan), sizes))
        for number, (_, counts) in enumerate(shares, start=skip + 1):
            self.seed_dropout()  # also for what a collator draws
            batch = next(on_device)
            last = number == len(self)
            self.epoch, self.begun = epoch + last, not last
            self.state.start_batch(sizes.popleft() * counts, last)
            yield batch

    def seed_dropout(self) -> None:
        """Between two updates, start the random stream of the next one, as the Trainer's loop."""
        if not self.state.has_gradients:
            stream = self.state.updates * self.device.world_size + self.device.rank
            self.device.seed(rng.derive(self.state.seed, "dropout", stream))

    def host_batches(self, epoch: int, plan: list[list[int]]) -> Iterator[Any]:
        """Give the batches of a plan, in host memory."""
        # torch draws a seed for workers whenever a DataLoader is iterated, from the generator that
        # dropout uses, unless it is given another.
        generator = rng.torch_generator(self.seed, "workers", epoch)
        settings = {name: getattr(self.loader, name) for name in LOADER_SETTINGS}
        loader: Any = DataLoader(self.dataset, batch_sampler=plan, generator=generator, **settings)
        yield from map(self.add_unpadding, loader)

    def shares_of_rank(self, epoch: int) -> Iterator[tuple[list[int], bool]]:
        """Give this process's rows of each batch; False marks one that is another process's."""
        ranks, plan = self.device.world_size, iter(self.plan(epoch))
        while at_once := [int(row) for rows in islice(plan, ranks) for row in rows]:
            share = np.array_split(at_once, ranks)[self.device.rank].tolist()
            yield share or at_once[:1], bool(share)

    def plan(self, epoch: int) -> Iterator[Sequence[int]]:
        """Give the row numbers of an epoch's batches, as the DataLoader cuts them."""
        batch_sampler: Any = self.loader.batch_sampler
        sampler: Any = getattr(batch_sampler, "sampler", None)
        n = len(self.dataset)  # type: ignore[arg-type]
        shuffles = isinstance(sampler, RandomSampler) and not sampler.replacement
        if not shuffles or len(sampler) != n:
            if self.lacks_generator:  # it would draw from the one that dropout uses
                sampler.generator = rng.torch_generator(self.seed, "order", epoch)
            return iter(batch_sampler)
        order, size = row_order(n, self.seed, epoch), batch_sampler.batch_size
        batches = split_into_batches(order, size, batch_sampler.drop_last)
        return (rows.tolist() for rows in batches)


@dataclass
class SkippedLoader:
    """A prepared loader without its first batches, as `skip_first_batches` returns it."""

    loader: PreparedLoader
    skip: int

    def __len__(self) -> int:
        return max(0, len(self.loader) - self.skip)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.loader.batches(self.skip)


class PreparedOptimizer(Optimizer):
    """An optimizer that steps once an update, by the mean over all items of its micro-batches.

    It holds no parameters of its own: groups and state are those of `optimizer`. It is an
    `Optimizer` because torch's schedulers take nothing else.

    Attributes:
        optimizer: as it was given to `prepare`.
        gradients: how many items they are a sum over, and the updates so far.
        step_was_skipped: gradients overflowed in fp16, so that the last step was left out.
    """

    def __init__(self, optimizer: Optimizer, device: Device, state: GradientState) -> None:
        self.optimizer, self.device, self.shared_state = optimizer, device, state
        self.gradients = GradientSum()
        state.sums.append(self.gradients)
        self.step_was_skipped = False

    def __getattr__(self, name: str) -> Any:  # param_groups, state, defaults
        return getattr(self.__dict__["optimizer"], name)

    def divide_and_clip(self, max_norm: float = 0) -> Tensor:
        """Turn summed gradients into mean ones of at most this norm; return the norm before."""
        gradients, where = self.gradients, self.device.torch_device
        if gradients.is_mean:
            raise ConfigError("the gradient of this update was clipped already")
        if gradients.count is None:
            what = "the optimizer has no gradient to step by"
            raise ConfigError(what, do="call accelerator.backward(loss), not loss.backward()")
        gradients.is_mean, count = True, gradients.count
        if not isinstance(count, Tensor):  # made on the device: sending a number would wait
            count = torch.full((), float(count), device=where)
        count = self.device.all_reduce(count.to(where, torch.float32))
        return self.device.clip_grad_norm(self.optimizer, max_norm, count)

    def step(self) -> None:  # type: ignore[override]
        """Update the parameters, if this micro-batch ends its update."""
        if not self.shared_state.sync_gradients:
            return
        if not self.gradients.is_mean:
            self.divide_and_clip()
        applied = self.device.step(self.optimizer)
        self.step_was_skipped = not applied
        self.gradients.updates += 1
        self.gradients.applied_updates += applied
        self.gradients.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, except those of an unfinished update."""
        if self.gradients.count is None or not self.shared_state.accumulating:
            self.optimizer.zero_grad(set_to_none)
            self.gradients.clear()

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
        self.seen_updates = optimizer.gradients.applied_updates

    def __getattr__(self, name: str) -> Any:  # get_last_lr, last_epoch...
        return getattr(self.__dict__["scheduler"], name)

    def step(self, *metrics: Any) -> None:
        """Call it after `optimizer.step()`, as always."""
        if self.optimizer.gradients.applied_updates > self.seen_updates:
            self.seen_updates = self.optimizer.gradients.applied_updates
            self.scheduler.step(*metrics)


def record_sizes(batches: Iterable[Any], sizes: deque[int]) -> Iterator[dict[str, Any]]:
    """Give the batches on, and append their numbers of rows to `sizes`."""
    for batch in batches:
        if not hasattr(batch, "items"):
            what = "a prepared DataLoader gives dicts of tensors"
            raise ArgumentError(what, got=type(batch).__name__, do="pass another collate_fn to it")
        sizes.append(len(next(iter(batch.values()))))
        yield batch
