"""Rows of a dataset to batches: their order in an epoch, cutting it up, collating, the device.

An epoch's order is a function of (seed, epoch) alone, so it is the same on every device and any
number of machines, and step k of epoch e is found by arithmetic: resuming skips nothing. Of a
DataLoader that a subclass of Trainer returns, minift takes the row numbers and loads the rows
itself: so batches can be cut for several processes or for want of memory.

    loader_batches    the rows that a DataLoader would load in an epoch, of which none is loaded
    epoch_plan        row numbers of all processes: epoch -> optimizer steps -> micro-batches
    share_of_rank     of a step, the batches of this process
    load_batches      row numbers -> collated batches in host memory, by this or other processes
    device_batches    the same on the device, with the positions of the real tokens
    epoch_updates     all of them together: what the loop iterates over
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from minift import rng
from minift.collate import DataCollatorWithPadding
from minift.data.dataset import Dataset
from minift.errors import ConfigError, TrainingError
from minift.models.unpadding import add_unpadding
from minift.signals import accept_sigterm_from_parent_only, block_termination
from minift.training.losses import model_loss
from minift.training.run import Run


def row_order(
    n: int, seed: int, epoch: int, lengths: np.ndarray | None = None, size: int = 1
) -> np.ndarray:
    """Return the order of `n` rows in an epoch, int64 of shape (n,).

    Args:
        n: number of rows.
        seed: of the order's stream.
        epoch: which epoch, from 0.
        lengths: of the rows; with them, rows of like length come together: a random order is cut
            into blocks of 50 batches, each sorted from long to short, the longest row first of all
            so that memory runs out at once or never (the peer's LengthGroupedSampler).
        size: rows in a batch, used with `lengths`.
    """
    order = rng.permutation(n, seed, "order", epoch)
    if lengths is None or n == 0:
        return order
    block = max(min(n // (size * 4), 50), 1) * size
    blocks = [order[i : i + block] for i in range(0, n, block)]
    blocks = [part[np.argsort(-lengths[part], kind="stable")] for part in blocks]
    longest = int(np.argmax([lengths[part[0]] for part in blocks]))
    blocks[0][0], blocks[longest][0] = blocks[longest][0], blocks[0][0]
    return np.concatenate(blocks)


def split_into_batches(order: np.ndarray, size: int, drop_last: bool = False) -> list[np.ndarray]:
    """Cut an order into batches of `size` rows, the last one shorter unless dropped."""
    if size < 1:
        raise ConfigError("a batch needs at least one row", got=size)
    stop = len(order) - len(order) % size if drop_last else len(order)
    return [order[i : i + size] for i in range(0, stop, size)]


def read_loader(run: Run, loader: Any, training: bool = False) -> tuple[Dataset, Any]:
    """Return the dataset and the collator of a loader, which an override may have made.

    Raises:
        ConfigError: there is more to its batches than rows and a collator, or another dataset.
    """
    plain = isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__
    if not plain or loader.batch_sampler is None or not isinstance(loader.dataset, Dataset):
        what = "get_train_dataloader and its kin must return a DataLoader of torch's"
        got = f"{type(loader).__name__} over {type(getattr(loader, 'dataset', None)).__name__}"
        raise ConfigError(what, got=got, expected="one with batches of a minift Dataset's rows")
    dataset = run.select_columns(loader.dataset, "the loader's dataset", training)
    own = loader.collate_fn is not run.collate  # it may read any column
    return loader.dataset if own else dataset, loader.collate_fn


def shuffles(loader: Any) -> bool:
    """Return whether each epoch of a loader has every row once, in a random order."""
    batches = loader.batch_sampler
    sampler: Any = getattr(batches, "sampler", None)
    whole = type(sampler) is RandomSampler and not sampler.replacement
    return whole and len(sampler) == len(loader.dataset) and type(batches) is BatchSampler


def loader_batches(
    loader: Any, seed: int, epoch: int, lengths: np.ndarray | None = None, size: int = 1
) -> list[np.ndarray]:
    """Return the row numbers of a loader's batches in an epoch, without loading any.

    If it shuffles, the order is `row_order`. Any other sampler is asked, and what it draws from the
    global generators is a stream of its own.
    """
    batch_sampler = loader.batch_sampler
    if shuffles(loader):
        order = row_order(len(loader.dataset), seed, epoch, lengths, size)
        return split_into_batches(order, batch_sampler.batch_size, batch_sampler.drop_last)
    for sampler in (loader.sampler, batch_sampler):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
    with rng.streams(seed, "sampler", epoch):
        return [np.asarray(rows, dtype=np.int64) for rows in batch_sampler]


def ask_loader(run: Run, loader: DataLoader, epoch: int) -> list[np.ndarray]:
    """Return `loader_batches`.

    Raises:
        ConfigError: they differ between processes, which share the rows out here.
    """
    batches = loader_batches(loader, run.args.seed, epoch)
    digest = float(zlib.crc32(b"".join(rows.tobytes() for rows in batches)) % 2**16)
    if run.device.all_reduce(torch.tensor(digest)).item() != digest * run.device.world_size:
        what = "the loaders of the processes give different rows, and all must give the same"
        raise ConfigError(what, do="use no DistributedSampler: each gets its share of the rows")
    return batches


def load_batches(
    dataset: Dataset, plan: Sequence[np.ndarray], collate: Callable[[Any], dict[str, Any]],
    num_workers: int = 0, seed: int = 0, numbers: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Give collated batches for a plan of row numbers, in its order for any number of workers.

    Args:
        dataset: whose rows.
        plan: the rows of each batch.
        collate: rows to a batch; if it draws random numbers, those of batch k are a stream of
            their own, in a worker or not, in a resumed run or not.
        num_workers: processes that collate; 0 for this one.
        seed: of these streams.
        numbers: of the plan's batches; 0, 1, ... by default.
    """
    collate_numbered = partial(collate_batch, dataset, collate, seed)
    numbered = list(zip(range(len(plan)) if numbers is None else numbers, plan, strict=True))
    if num_workers == 0:
        yield from map(collate_numbered, numbered)
        return
    workers: DataLoader = DataLoader(
        numbered,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=collate_numbered,
        num_workers=num_workers,
        # Otherwise it would draw a seed from the generator that dropout uses.
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=accept_sigterm_from_parent_only,
    )
    with block_termination():  # until the worker accepts it from its parent only
        batches = iter(workers)
    yield from batches


def collate_batch(
    dataset: Dataset, collate: Callable[[Any], Any], seed: int, numbered: tuple[int, np.ndarray]
) -> dict[str, Any]:
    """Return a collated batch, of its number and its rows."""
    number, rows = numbered
    if type(collate) is DataCollatorWithPadding:  # which draws nothing
        return collate(dataset.__getitems__(rows))
    with rng.streams(seed, "collate", number):
        return collate(dataset.__getitems__(rows))


def epoch_plan(run: Run, epoch: int) -> list[list[np.ndarray]]:
    """Return the rows of an epoch, by optimizer step and micro-batch, those of all ranks.

    A loader that shuffles gives the run's own order. Any other is asked for one epoch after the
    other, from the first one on, so that also a sampler that counts them repeats itself in a
    resumed run. Batches of one process are joined to those of all.

    Raises:
        ConfigError: epochs have unequal numbers of batches.
    """
    args, loader, dataset = run.args, run.train_loader, run.train_dataset
    assert dataset is not None
    group = args.gradient_accumulation_steps
    if shuffles(loader):
        seed = args.seed if args.data_seed is None else args.data_seed
        grouped = args.train_sampling_strategy == "group_by_length"
        lengths = dataset.lengths("input_ids") if grouped else None
        batches = loader_batches(loader, seed, epoch, lengths, run.micro_batch_size * group)
    else:
        while len(run.epochs) <= epoch:
            run.epochs.append(ask_loader(run, loader, len(run.epochs)))
        batches = run.epochs[epoch]
    ranks = 1 if loader.batch_size == run.micro_batch_size else run.device.world_size
    joined = [np.concatenate(batches[i : i + ranks]) for i in range(0, len(batches), ranks)]
    joined = joined[: len(batches) // ranks] if loader.drop_last else joined
    if run.epoch_batches not in (0, len(joined)):
        what, got = "each epoch must have as many batches as the first", len(joined)
        raise ConfigError(what, got=got, expected=run.epoch_batches)
    return [joined[i : i + group] for i in range(0, len(joined), group)]


def steps_per_epoch(run: Run) -> int:
    """Return the number of optimizer steps in an epoch."""
    return math.ceil(run.epoch_batches / run.args.gradient_accumulation_steps)


def share_of_rank(run: Run, micro_batches: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Return the rows of each batch that this rank computes of an update, and their weight, 1.

    At the end of an epoch there may be fewer rows than ranks. A rank without rows computes one of
    another's, so that it has gradients of the same shapes to add up, with the weight 0.
    """
    ranks, rank = run.device.world_size, run.device.rank
    shares = [np.array_split(rows, ranks)[rank] for rows in micro_batches]
    parts = [part for rows in shares for part in np.array_split(rows, run.batch_splits)]
    parts = [part for part in parts if len(part)]
    return (parts, 1) if parts else ([micro_batches[0][:1]], 0)


def epoch_updates(run: Run) -> Iterator[tuple[list[np.ndarray], int, Iterator[dict[str, Any]]]]:
    """Give the updates of the current epoch that are still to be done, from global_step on.

    Returns:
        For each update the rows of its batches in this process; their weight, see `share_of_rank`;
        and an iterator over these batches on the device, which has to be used up.
    """
    assert run.train_dataset is not None and run.train_collate is not None
    step, args = run.state.global_step, run.args
    epoch, done = divmod(step, steps_per_epoch(run))  # O(1) seek: an epoch's plan is a function
    shares = [share_of_rank(run, micro_batches) for micro_batches in epoch_plan(run, epoch)[done:]]
    plan = [rows for parts, _ in shares for rows in parts]
    first = step * args.gradient_accumulation_steps  # the number of the plan's first batch
    size = max([args.per_device_train_batch_size, *map(len, plan)])
    batches = device_batches(run, run.train_dataset, run.train_collate, plan, size, first)
    return ((parts, weight, islice(batches, len(parts))) for parts, weight in shares)


def split_batches(run: Run, parts: list[np.ndarray], error: Exception) -> None:
    """Compute each batch in twice as many parts from here on: same rows, same sums.

    Raises:
        TrainingError: not even a single row fits into the device's memory.
    """
    if max(map(len, parts)) == 1:
        what = "a batch of one row does not fit into the memory of the device"
        do = "tokenize with a smaller max_length, or take a smaller model"
        raise TrainingError(what, got=str(error).partition("\n")[0], do=do) from error
    run.batch_splits *= 2
    run.log_message(f"out of memory: batches are computed in {run.batch_splits} parts from here on")


def device_batches(
    run: Run, dataset: Dataset, collate: Callable[[Any], dict[str, Any]],
    plan: Sequence[np.ndarray], size: int, first: int = 0,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Give collated batches of planned rows, on the device.

    Where the real tokens are is worked out here, while the mask is still in host memory.

    Args:
        run: the device and the model's arguments.
        dataset: holds the rows.
        collate: rows to a batch.
        plan: the row numbers of each batch of this process.
        size: rows of a full batch.
        first: the number of the plan's first batch; those of all processes come in turn.
    """
    ranks, workers = run.device.world_size, run.args.dataloader_num_workers
    numbers = range(first * ranks + run.device.rank, (first + len(plan)) * ranks, ranks)
    collated = load_batches(dataset, plan, collate, workers, run.args.seed, numbers)
    names, models_loss = run.forward_args or (), run.own_loss is None and run.loss is model_loss
    # The device may add rows that do not count only if the loss can leave them out.
    may_add_rows = models_loss and "example_mask" in names
    rows = math.ceil(size / run.batch_splits) if may_add_rows else 0
    if "unpadding" in names:
        collated = (add_unpadding(batch, run.device, run.precision) for batch in collated)
    return run.device.batches(collated, rows)
