"""Named random streams: every draw in a run comes from `hash(seed, purpose, ...)`.

A single global generator couples everything that draws from it: evaluating between two steps would
change the dropout masks of the next one, and seeds 42 and 43 would share data orders if an epoch
number were added to the seed. A hash has neither problem, and it makes resuming trivial: the
stream of epoch 3 or of step 700 is computed, not replayed.

Streams in use: ("head NAME",) a new parameter, ("order", epoch) the order of rows,
("dropout", step) all draws inside one optimizer step, ("collate", batch) those of a collator.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from minift.errors import ConfigError

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *position: int) -> int:
    """Return the seed of a stream: 63 bits, equal on every machine and in every Python.

    Args:
        seed: the run's seed.
        purpose: the stream's name.
        position: where in the stream, for example the epoch.
    """
    text = "/".join(map(str, (seed, purpose, *position)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(n: int, seed: int, purpose: str, *position: int) -> np.ndarray:
    """Return a random order of `range(n)`, int64 of shape (n,)."""
    return np.random.default_rng(derive(seed, purpose, *position)).permutation(n)


def torch_generator(seed: int, purpose: str, *position: int) -> "torch.Generator":
    """Return a generator of a stream on the host; drawing from it affects no other stream."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, *position))


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators, for code that draws from them.

    Training itself does not need it: its streams depend on `TrainingArguments.seed` alone.
    """
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def streams(seed: int, purpose: str, *position: int) -> Iterator[None]:
    """Seed the global generators with a stream for the block, and restore their states after it."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    set_seed(derive(seed, purpose, *position))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])


def random_generator(
    seed: int | None = None, generator: np.random.Generator | None = None
) -> np.random.Generator:
    """Return a numpy generator, without a seed from numpy's global state.

    Its `permutation(n)` is the order that `datasets` shuffles n rows into, bit by bit.
    """
    if generator is not None and seed is not None:
        raise ConfigError("both a seed and a generator were given", expected="one of them")
    if generator is None and seed is None:
        state: Any = np.random.get_state()
        keys, position = state[1:3]
        seed = int(keys[position if position < len(keys) else 0])
        np.random.random()
    return generator or np.random.default_rng(seed)
