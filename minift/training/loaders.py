"""DataLoaders that a subclass of Trainer returns: which rows they would load, without loading any.

minift loads the rows itself: so batches can be cut for several processes or for want of memory, a
resumed run finds its place, and an error can name its rows.
"""

import zlib
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from minift import rng
from minift.data.dataset import Dataset
from minift.errors import ConfigError
from minift.training.run import Run


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


def ask_loader(run: Run, loader: DataLoader, epoch: int) -> list[np.ndarray]:
    """Return the row numbers of a loader's batches in an epoch, without loading any.

    Raises:
        ConfigError: they differ between processes, which share the rows out here.
    """
    sampler: Any
    for sampler in (loader.sampler, loader.batch_sampler):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
    with rng.streams(run.args.seed, "sampler", epoch):
        batches = [np.asarray(rows, dtype=np.int64) for rows in loader.batch_sampler or ()]
    digest = float(zlib.crc32(b"".join(rows.tobytes() for rows in batches)) % 2**16)
    if run.device.all_reduce(torch.tensor(digest)).item() != digest * run.device.world_size:
        what = "the loaders of the processes give different rows, and all must give the same"
        raise ConfigError(what, do="use no DistributedSampler: each gets its share of the rows")
    return batches
