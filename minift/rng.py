"""Named random streams: every draw in a run comes from `hash(seed, purpose, ...)`.

A single global generator couples everything that draws from it: evaluating between two steps would
change the dropout masks of the next one, and seeds 42 and 43 would share data orders if an epoch
number were added to the seed. A hash has neither problem, and it makes resuming trivial: the
stream of epoch 3 or of step 700 is computed, not replayed.

Streams in use: ("head NAME",) a new parameter, ("order", epoch) the order of rows,
("dropout", step) all draws inside one optimizer step, ("collate", batch) those of a collator,
("map KEY", row) those of a mapped function in the batch that begins with that row.
"""

import contextlib
import functools
import hashlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
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
    with borrowed_generators() as start_stream:
        start_stream(seed, purpose, *position)
        yield


@contextlib.contextmanager
def borrowed_generators(others: Sequence[Any] = ()) -> Iterator[Callable[..., None]]:
    """Yield a function of (seed, purpose, *position) that seeds generators with that stream.

    These are the global ones, torch's if it is loaded, and `others`. After the block they are as
    they were.
    """
    torch = sys.modules.get("torch")
    # torch's comes last: whether it is there must not change the number of another one.
    generators = [random, np.random, *others, *([torch.default_generator] if torch else [])]
    methods = [methods_of(generator) for generator in generators]
    states = [get() for get, _, _ in methods]

    def start_stream(seed: int, purpose: str, *position: int) -> None:
        first = derive(seed, purpose, *position)
        for i, (_, _, start) in enumerate(methods):  # with one seed, two of a kind are alike
            start(first + i)

    try:
        yield start_stream
    finally:
        for (_, put, _), state in zip(methods, states, strict=True):
            put(state)


def methods_of(generator: Any) -> tuple[Callable[..., Any], ...]:
    """Return what gets and what sets a generator's state, and what seeds it."""
    if isinstance(generator, np.random.Generator):
        bits: Any = generator.bit_generator
        put = functools.partial(setattr, bits, "state")
        return (lambda: bits.state), put, (lambda seed: put(type(bits)(seed).state))
    if hasattr(generator, "getstate"):  # Python's
        return generator.getstate, generator.setstate, generator.seed
    start = getattr(generator, "manual_seed", lambda seed: generator.seed(seed % 2**32))
    return generator.get_state, generator.set_state, start


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
