"""Rows to padded batches: the collator, the order of rows, the loader.

An epoch's order is a function of (seed, epoch) alone, so it is the same on every device and any
number of machines, and step k of epoch e is found by arithmetic: resuming skips nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minift import rng
from minift.data.batch import RowBatch
from minift.data.dataset import Dataset
from minift.errors import ConfigError
from minift.signals import accept_sigterm_from_parent_only, block_sigterm
from minift.tokenizer import Tokenizer


@dataclass
class DataCollatorWithPadding:
    """A list of rows to a dict of tensors, padded to the longest row of the batch.

    It takes rows of a dataset (padded straight from the memory map), a list of dicts, or a dict of
    lists. `label` and `label_ids` become `labels`; a column of text is an error that names it.

    Attributes:
        tokenizer: says the padding token, its side and the model's inputs.
        padding: True or "longest"; "max_length" pads to `max_length`, for compiled shapes; False
            takes only rows that are equally long.
        max_length: in tokens; the model's limit by default.
        pad_to_multiple_of: round the length up, for hardware that likes multiples of 8.
    """

    tokenizer: Tokenizer
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, features: Any) -> dict[str, Any]:
        """
        Returns:
            `input_ids`, `attention_mask`, `token_type_ids`: int64 of shape (B, T); `labels`:
            int64 or float32 of shape (B,) or (B, num_labels).
        """
        rows = features.columns() if isinstance(features, RowBatch) else features
        kind = "np" if self.return_tensors == "np" else "pt"
        padded = self.tokenizer.pad(
            rows, self.padding, self.max_length, self.pad_to_multiple_of, kind
        )
        return padded.data


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


def batches(order: np.ndarray, size: int, drop_last: bool = False) -> list[np.ndarray]:
    """An order cut into batches of `size` rows, the last one shorter unless dropped."""
    if size < 1:
        raise ConfigError("a batch needs at least one row", got=size)
    stop = len(order) - len(order) % size if drop_last else len(order)
    return [order[i : i + size] for i in range(0, stop, size)]


def pad_to_shape(
    batch: dict[str, Any], batch_size: int, length: int, pad_token_id: int
) -> dict[str, Any]:
    """Pad a collated batch in host memory to B x T, for devices that compile each shape anew.

    Args:
        batch: tensors of shape (B, ...); those that have the shape of `input_ids` are (B, T).
        batch_size: the new B. Added rows repeat the first one; an `example_mask` of 0 must leave
            them out of the loss.
        length: the new T. Added positions hold padding, which `attention_mask` marks with 0.
        pad_token_id: fills `input_ids`; all other columns are filled with 0.
    """
    import torch

    padded = dict(batch)
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor) or not value.dim():
            continue
        per_token = name != "labels" and "input_ids" in batch
        if per_token and value.shape == batch["input_ids"].shape:
            pad_value = pad_token_id if name == "input_ids" else 0
            missing = length - value.shape[1]
            value = torch.nn.functional.pad(value, (0, missing), value=pad_value)
        copies = value[:1].expand(batch_size - len(value), *value.shape[1:])
        padded[name] = torch.cat([value, copies])
    return padded


def loader(
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
    tasks = Tasks(dataset, collate, seed)
    numbered = list(zip(range(len(plan)) if numbers is None else numbers, plan, strict=True))
    if num_workers == 0:
        yield from map(tasks.__getitem__, numbered)
        return
    import torch
    from torch.utils.data import DataLoader

    workers: DataLoader = DataLoader(
        tasks,  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbered,
        num_workers=num_workers,
        # Without one of its own, it draws a seed from the generator that dropout uses.
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=accept_sigterm_from_parent_only,
        collate_fn=as_it_is,  # type: ignore[arg-type]
    )
    with block_sigterm():  # until the worker accepts it from its parent only
        stream = iter(workers)
    yield from stream


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """torch would make tensors of what else is in a batch."""
    return batch


@dataclass
class Tasks:
    """Collated batches by (number, rows)."""

    dataset: Dataset
    collate: Callable[[Any], dict[str, Any]]
    seed: int

    def __getitem__(self, task: tuple[int, np.ndarray]) -> dict[str, Any]:
        number, rows = task
        if type(self.collate) is DataCollatorWithPadding:  # which draws nothing
            return self.collate(self.dataset.__getitems__(rows))
        with rng.streams(self.seed, "collate", number):
            return self.collate(self.dataset.__getitems__(rows))
