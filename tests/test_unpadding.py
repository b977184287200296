"""The arithmetic of leaving padding out: every real token once, nothing else, and the best cut."""

import doctest
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minift.models import unpadding
from minift.models.attention import attention_biases, head_index
from minift.models.unpadding import Unpadding, choose_blocks

CPU = torch.device("cpu")
BLOCK_COST = unpadding.BLOCK_COST

# (B, T) masks of 0 and 1, with rows of nothing, holes and padding on either side.
masks = st.tuples(st.integers(1, 6), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(0, 1), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).map(torch.tensor)
)
thorough = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(params=[0, 2000], ids=["many_blocks", "few_blocks"], autouse=True, scope="module")
def cost_of_a_block(request):
    """Tiny rows would always end in one block; where blocks cost nothing they do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpadding, "BLOCK_COST", request.param)
        yield request.param


def read(mask):
    """What is computed: the real tokens, and each row's first position."""
    wanted = mask != 0
    wanted[:, 0] = True
    return wanted


def test_the_worked_example_of_the_module_is_true(monkeypatch):
    monkeypatch.setattr(unpadding, "BLOCK_COST", BLOCK_COST)
    failed, attempted = doctest.testmod(unpadding)
    assert attempted >= 12 and failed == 0


# ------------------------------------------------------------------------------------ which tokens


@given(masks)
@thorough
def test_every_real_token_is_there_once_and_no_other_but_first_positions(mask):
    index = Unpadding.from_mask(mask).indices
    assert len(index.unique()) == len(index)
    assert torch.equal(index.sort().values, read(mask).flatten().nonzero().flatten())


@given(masks)
@thorough
def test_rows_stay_together_and_in_order_the_longest_first(mask):
    B, T = mask.shape
    made = Unpadding.from_mask(mask)
    rows, columns = made.indices // T, made.indices % T
    order = rows.unique_consecutive()
    assert len(order) == B, "each row in one piece"
    lengths = read(mask).sum(1)[order]
    assert (lengths.diff() <= 0).all()
    same_row = rows.diff() == 0
    assert (columns.diff()[same_row] > 0).all()
    assert [len(block.token_index) for block in made.blocks] != [] and made.shape == (B, T)


@given(masks)
@thorough
def test_first_positions_are_found_and_put_back_in_the_order_of_the_batch(mask):
    B, T = mask.shape
    made = Unpadding.from_mask(mask)
    assert torch.equal(
        made.indices[made.first_token_index][made.original_order], torch.arange(B) * T
    )


@given(masks)
@thorough
def test_pad_undoes_unpad(mask):
    B, T = mask.shape
    block = torch.arange(1, B * T + 1).view(B, T)
    made = Unpadding.from_mask(mask)
    back = made.pad(made.unpad(block)[:, None].double())[..., 0]
    assert torch.equal(back, torch.where(read(mask), block, 0).double())


@given(masks)
@thorough
def test_a_block_hides_all_but_the_real_tokens_of_its_row(mask):
    """A first position that is padding is computed and yet looked at by nobody.

    Unless there is nothing else in its row: then it looks at itself, so that all is finite.
    """
    T = mask.shape[1]
    made = Unpadding.from_mask(mask)
    seen = []
    for block, bias in zip(made.blocks, attention_biases(made), strict=True):
        rows = made.indices[block.token_index] // T
        assert (rows == rows[:, :1]).all(), "padding is filled with a token of the same row"
        lowest = torch.finfo(torch.float32).min
        hidden = torch.zeros_like(rows) if bias is None else bias[:, 0, 0]
        assert ((hidden == 0) | (hidden == lowest)).all()
        seen.append(made.indices[block.token_index[hidden == 0]])
    seen = torch.cat(seen)
    wanted = mask.clone()
    wanted[mask.sum(1) == 0, 0] = 1
    assert torch.equal(seen.sort().values, wanted.flatten().nonzero().flatten())


def test_an_accelerator_gets_one_block():
    mask = torch.tensor([[1] * 500, *[[1] * 10 + [0] * 490] * 9])
    made = Unpadding.from_mask(mask, torch.device("meta"))
    assert len(made.blocks) == 1 and len(made.indices) == 590
    assert made.to("meta").blocks[0].token_index.shape == (10, 500)
    assert len(Unpadding.from_mask(mask).blocks) == len(Unpadding.from_mask(mask, CPU).blocks) == 2


# -------------------------------------------------------------------------------------- other ways


@given(masks)
@thorough
def test_the_whole_batch_is_one_block_in_its_own_order(mask):
    B, T = mask.shape
    made = Unpadding.identity(mask)
    block = torch.randn(B, T, 2)
    assert torch.equal(made.indices, torch.arange(B * T))
    assert torch.equal(made.pad(block.view(B * T, 2)), block)
    assert torch.equal(
        made.indices[made.first_token_index][made.original_order], torch.arange(B) * T
    )
    (only,) = made.blocks
    assert torch.equal(only.mask, mask != 0) and not len(only.padding_cells)


@given(masks)
@thorough
def test_moved_to_a_device_it_is_the_same(mask):
    made = Unpadding.from_mask(mask)
    attention_biases(made), head_index(made, 1, 1)
    moved = made.to("cpu")
    assert moved.shape == made.shape and moved.cache == {}
    for name in ("indices", "first_token_index", "original_order"):
        assert torch.equal(getattr(moved, name), getattr(made, name))
    for block, other in zip(made.blocks, moved.blocks, strict=True):
        for name, value in vars(block).items():
            got = getattr(other, name)
            assert (value is None and got is None) or torch.equal(value, got)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32])
def test_masks_of_any_number_type(dtype):
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    got, want = Unpadding.from_mask(mask.to(dtype)), Unpadding.from_mask(mask)
    assert torch.equal(got.indices, want.indices)


# ------------------------------------------------------------------------------------------- blocks


def cost(lengths, blocks):
    return sum((j - i) * int(lengths[i]) ** 2 + unpadding.BLOCK_COST for i, j in blocks)


@given(st.lists(st.integers(1, 128), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_division_costs_less(lengths):
    """Against all of the up to 128 ways."""
    lengths = np.array(sorted(lengths, reverse=True))
    n, found = len(lengths), choose_blocks(lengths)
    assert [i for i, _ in found] == [0] + [j for _, j in found[:-1]] and found[-1][1] == n
    assert all(i < j for i, j in found)
    ways = itertools.chain.from_iterable(
        itertools.combinations(range(1, n), k) for k in range(n)
    )  # where a new block begins
    best = min(cost(lengths, itertools.pairwise((0, *way, n))) for way in ways)
    assert cost(lengths, found) == best


def test_rows_of_one_length_are_one_block():
    assert choose_blocks(np.full(32, 40)) == [(0, 32)]


def test_one_long_row_does_not_make_the_others_pay():
    assert choose_blocks(np.array([500, *[10] * 15])) == [(0, 1), (1, 16)]
