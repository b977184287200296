"""Rows of a dataset to batches: their order in an epoch, cutting it up, collating in processes.

An epoch's order is a function of (seed, epoch) alone, so it is the same on every device and any
number of machines, and step k of epoch e is found by arithmetic: resuming skips nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minift import rng
from minift.collate import DataCollatorWithPadding
from minift.data.dataset import Dataset
from minift.errors import ConfigError
from minift.signals import accept_sigterm_from_parent_only, block_sigterm


def row_order(
    n: int, seed: int, epoch: int, lengths: np.ndarray | None = None, size: int = 1
) -> np.ndarray:
    """The order of `n` rows in an epoch, int64 of shape (n,).

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
    """An order cut into batches of `size` rows, the last one shorter unless dropped."""
    if size < 1:
        raise ConfigError("a batch needs at least one row", got=size)
    stop = len(order) - len(order) % size if drop_last else len(order)
    return [order[i : i + size] for i in range(0, stop, size)]


def load_batches(
    dataset: Dataset,
    plan: Sequence[np.ndarray],
    collate: Callable[[Any], dict[str, Any]],
    num_workers: int = 0,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Collated batches for a plan of row numbers, in its order whatever the number of workers.

    Args:
        dataset: whose rows.
        plan: the rows of each batch.
        collate: rows to a batch; if it draws random numbers, those of batch k are a stream of
            their own, in a worker or not, in a resumed run or not.
        num_workers: processes that collate; 0 for this one.
        seed: of these streams.
        numbers: of the plan's batches; 0, 1, ... by default.
    """
    collated = CollatedBatches(dataset, collate, seed)
    numbered = list(zip(range(len(plan)) if numbers is None else numbers, plan, strict=True))
    if num_workers == 0:
        yield from map(collated.__getitem__, numbered)
        return
    import torch
    from torch.utils.data import DataLoader

    workers: DataLoader = DataLoader(
        collated,  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbered,
        num_workers=num_workers,
        # Without one of its own, it draws a seed from the generator that dropout uses.
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=accept_sigterm_from_parent_only,
        collate_fn=unchanged,  # type: ignore[arg-type]
    )
    with block_sigterm():  # until the worker accepts it from its parent only
        stream = iter(workers)
    yield from stream


def unchanged(batch: dict[str, Any]) -> dict[str, Any]:
    """Collate nothing: by default torch would turn other values of a batch into tensors."""
    return batch


@dataclass
class CollatedBatches:
    """Collated batches as a dataset of torch's: the key is a batch's number and its rows."""

    dataset: Dataset
    collate: Callable[[Any], dict[str, Any]]
    seed: int

    def __getitem__(self, key: tuple[int, np.ndarray]) -> dict[str, Any]:
        number, rows = key
        if type(self.collate) is DataCollatorWithPadding:  # which draws nothing
            return self.collate(self.dataset.__getitems__(rows))
        with rng.streams(self.seed, "collate", number):
            return self.collate(self.dataset.__getitems__(rows))
