"""Named random streams: recorded values that must never change, and independence."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minift import rng, set_seed


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        ((0, "order", 0), 3471081512423777433),
        ((42, "order", 0), 3585333030069913952),
        ((42, "order", 1), 9097817985423106757),
        ((43, "order", 0), 3008004992080644726),
        ((42, "dropout", 7), 2750574410445957333),
        ((42, "head classifier.weight"), 2916411895505345683),
        ((-1, "x"), 1654027142087358668),
        ((2**70, "x", 1, 2), 3239166598109977003),
    ],
)
def test_streams_never_change(arguments, want):
    """A checkpoint, a paper or a colleague may depend on them."""
    assert rng.derive(*arguments) == want


def test_streams_are_the_same_in_another_process():
    """Python's own hash of a string would not be."""
    script = "from minift import rng; print(rng.derive(42, 'order', 3))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert int(done.stdout) == rng.derive(42, "order", 3)


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**31), max_size=3))
def test_a_seed_fits_every_generator(seed, position):
    found = rng.derive(seed, "order", *position)
    assert 0 <= found < 2**63
    assert found == rng.derive(np.int64(seed), "order", *map(np.int64, position))


def test_no_two_streams_coincide():
    """Seeds, purposes and positions that an addition would mix up."""
    found = {
        rng.derive(seed, purpose, *position)
        for seed in range(20)
        for purpose in ("order", "dropout", "head")
        for position in [
            (),
            *[(i,) for i in range(20)],
            *[(i, j) for i in range(5) for j in (0, 1)],
        ]
    }
    assert len(found) == 20 * 3 * 31


def test_neighbouring_streams_are_independent():
    """Correlation of the bits of neighbouring seeds and positions: five standard errors."""
    n = 4000
    for first, second in (((1, 0), (0, 1)), ((0, 1), (1, 0)), ((0, 0), (0, 1)), ((0, 0), (1, 0))):
        a = [rng.derive(i + first[0], "order", i + first[1]) for i in range(n)]
        b = [rng.derive(i + second[0], "order", i + second[1]) for i in range(n)]
        equal_bits = sum((63 - (x ^ y).bit_count()) for x, y in zip(a, b, strict=True))
        assert abs(equal_bits - 31.5 * n) < 5 * (63 * n / 4) ** 0.5


def test_a_permutation_is_one():
    found = rng.permutation(100, 1, "order", 2)
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(100))
    assert np.array_equal(found, rng.permutation(100, 1, "order", 2))
    assert rng.permutation(0, 1, "order").shape == (0,)
    assert rng.permutation(5, 1, "x").tolist() == [0, 1, 4, 2, 3]


def test_permutations_reach_every_order():
    """Of three rows, six orders, each about equally often."""
    counts = np.unique(
        [rng.permutation(3, seed, "order") for seed in range(6000)], axis=0, return_counts=True
    )[1]
    assert len(counts) == 6 and abs(counts - 1000).max() < 5 * 1000**0.5


def test_streams_move_no_global_generator():
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    generator = rng.torch_generator(1, "head")
    torch.rand(3, generator=generator)
    rng.permutation(10, 1, "order")
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert generator.initial_seed() == rng.derive(1, "head")


@pytest.mark.parametrize("seed", [0, 42, 2**40 + 7])
def test_set_seed_seeds_all_three(seed):
    def draw():
        return random.random(), np.random.rand(), float(torch.rand(1))

    set_seed(seed)
    first = draw()
    assert draw() != first
    set_seed(seed)
    assert draw() == first
    assert torch.initial_seed() == seed
    set_seed(seed + 1)
    assert all(a != b for a, b in zip(draw(), first, strict=True))
