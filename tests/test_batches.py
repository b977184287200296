"""The rows of an epoch's batches: an order that is a function, and workers that change nothing."""

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_model, make_rows

from minift import AutoTokenizer, DataCollatorWithPadding, Dataset
from minift.errors import ConfigError
from minift.training import batches
from minift.training.batches import load_batches, row_order, split_into_batches


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def collate(tokenizer):
    return DataCollatorWithPadding(tokenizer)


def tokenized(tokenizer, n=40):
    """Rows of unequal lengths, as a dataset without text columns."""
    rows = make_rows(n)
    encoded = tokenizer(rows["sentence1"], rows["sentence2"])
    return Dataset.from_dict({**encoded, "label": rows["label"]})


# ---------------------------------------------------------------------------------------- the order


@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(0, 50))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_an_order_has_every_row_once(n, seed, epoch):
    order = row_order(n, seed, epoch)
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, row_order(n, seed, epoch))


def test_an_order_depends_on_nothing_global():
    first = row_order(100, 42, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert np.array_equal(first, row_order(100, 42, 0))


def test_orders_of_epochs_and_seeds_are_all_different():
    """accelerate adds the epoch to the seed: its seed 42, epoch 1 is its seed 43, epoch 0."""
    orders = {row_order(50, seed, epoch).tobytes() for seed in range(40, 50) for epoch in range(10)}
    assert len(orders) == 100


def test_an_order_never_changes():
    """A checkpoint of last year must go on with the rows that it would have had."""
    assert row_order(10, 42, 0).tolist() == [9, 7, 0, 5, 1, 6, 8, 2, 3, 4]
    assert row_order(10, 42, 1).tolist() == [7, 3, 6, 8, 9, 2, 5, 0, 4, 1]


@given(
    st.lists(st.integers(1, 60), min_size=0, max_size=200),
    st.integers(1, 16),
    st.integers(0, 5),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_grouping_by_length_has_every_row_once(lengths, size, epoch):
    lengths = np.array(lengths, dtype=np.int64)
    order = row_order(len(lengths), 7, epoch, lengths, size)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    if len(lengths):
        assert lengths[order[0]] == lengths.max()  # out of memory at once, or never


def test_grouping_by_length_saves_padding():
    lengths = np.random.default_rng(0).integers(1, 128, 4000)

    def padded(order):
        return sum(int(lengths[rows].max()) * len(rows) for rows in split_into_batches(order, 8))

    grouped = row_order(4000, 1, 0, lengths, 8)
    assert padded(grouped) < 1.1 * lengths.sum() < 0.7 * padded(row_order(4000, 1, 0))
    assert not np.array_equal(grouped, row_order(4000, 1, 1, lengths, 8))
    firsts = {int(rows[0]) // 8 for rows in split_into_batches(np.argsort(np.argsort(grouped)), 8)}
    assert len(firsts) > 100  # still shuffled, not sorted


def test_batches_cut_an_order():
    order = np.arange(10)[::-1]
    assert [rows.tolist() for rows in split_into_batches(order, 4)] == [
        [9, 8, 7, 6],
        [5, 4, 3, 2],
        [1, 0],
    ]
    assert [len(rows) for rows in split_into_batches(order, 4, drop_last=True)] == [4, 4]
    assert [len(rows) for rows in split_into_batches(order, 5, drop_last=True)] == [5, 5]
    assert split_into_batches(order[:0], 4) == []
    with pytest.raises(ConfigError, match="at least one row"):
        split_into_batches(order, 0)


# --------------------------------------------------------------------------------------- the loader


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_neither_batches_nor_random_numbers(tokenizer, collate, workers):
    """pytorch#80119: a DataLoader draws from the generator that dropout uses."""
    data = tokenized(tokenizer)
    plan = split_into_batches(row_order(40, 3, 0), 7)
    before = torch.get_rng_state()
    got = list(load_batches(data, plan, collate, workers))
    assert torch.equal(before, torch.get_rng_state())
    assert len(got) == 6
    for batch, rows in zip(got, plan, strict=True):
        expected = collate([data[int(i)] for i in rows])
        assert set(batch) == set(expected)
        assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())


def test_any_collator_gets_a_list_of_dicts(tokenizer):
    """A user's own function sees rows, not the class that saves reading them."""
    data = tokenized(tokenizer)
    (batch,) = load_batches(data, [np.array([1, 4])], lambda rows: {"n": [len(r) for r in rows]})
    assert batch == {"n": [4, 4]}


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="not POSIX, or macOS")
def test_a_worker_obeys_the_parent_alone_from_its_first_moment(tokenizer, collate, monkeypatch):
    """Schedulers send SIGTERM to all processes of a run, also while workers are just starting."""
    obey = batches.accept_sigterm_from_parent_only

    def too_early(worker):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # a terminal sends it to all of them
        obey(worker)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(batches, "accept_sigterm_from_parent_only", too_early)
    rows = tokenized(tokenizer)
    plan = split_into_batches(range(len(rows)), 8)
    assert len(list(load_batches(rows, plan, collate, num_workers=2))) == len(plan)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
