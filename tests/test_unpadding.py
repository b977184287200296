"""The arithmetic of leaving padding out: every real token once, nothing else, and the best cut."""

import dataclasses
import doctest
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minift.models import unpadding
from minift.models.attention import Gather, attention_biases, head_index, merge_heads, split_heads
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


# ---------------------------------------------------------------------------------- heads in blocks


@given(masks, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
@thorough
def test_merge_heads_undoes_split_heads(mask, k, N, D):
    made = Unpadding.from_mask(mask)
    tokens = torch.randn(len(made.indices), k * N * D, generator=torch.Generator().manual_seed(0))
    heads = split_heads(tokens, made, k, N, tokens.dtype)
    for part in range(k):
        back = merge_heads([block[part] for block in heads], made, tokens.dtype)
        assert torch.equal(back, tokens.view(-1, k, N * D)[:, part])


@given(masks)
@thorough
def test_split_heads_puts_each_head_of_each_token_where_its_block_says(mask):
    made, k, N, D = Unpadding.from_mask(mask), 3, 2, 2
    tokens = torch.arange(len(made.indices) * k * N * D, dtype=torch.float64).view(-1, k * N * D)
    for block, parts in zip(
        made.blocks, split_heads(tokens, made, k, N, tokens.dtype), strict=True
    ):
        b, t = block.token_index.shape
        want = (
            tokens[block.token_index].view(b, t, k, N, D).permute(2, 0, 3, 1, 4)
        )  # (k, b, N, t, D)
        assert torch.equal(torch.stack(parts), want)


@given(masks)
@thorough
def test_gradients_come_back_and_padding_gets_none(mask):
    """As torch's own indexing has them, where what stands at padding carries no gradient."""
    made, N, D = Unpadding.from_mask(mask), 2, 2
    generator = torch.Generator().manual_seed(1)
    blocks = [
        torch.randn(len(block.token_index), N, block.token_index.shape[1], D, generator=generator)
        for block in made.blocks
    ]
    blocks = [block.requires_grad_() for block in blocks]
    merged = merge_heads(blocks, made, torch.float32)
    weight = torch.randn(merged.shape, generator=generator)
    (merged * weight).sum().backward()
    for block, tensor in zip(made.blocks, blocks, strict=True):
        b, t = block.token_index.shape
        grad = tensor.grad.transpose(1, 2).reshape(b * t, N * D)
        assert not grad[block.padding_cells].any()
        assert torch.equal(
            grad[block.token_cells], weight[block.token_index.flatten()[block.token_cells]]
        )
        every = torch.cat([block.token_cells, block.padding_cells]).sort().values
        assert torch.equal(every, torch.arange(b * t)), "each cell is a token's or padding"


@given(masks)
@thorough
def test_split_heads_gives_each_token_the_gradient_of_its_own_place(mask):
    """The copies at padding are never looked at, and what they would add is left out."""
    made, k, N, D = Unpadding.from_mask(mask), 2, 2, 1
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(len(made.indices), k * N * D, generator=generator, requires_grad=True)
    heads = split_heads(tokens, made, k, N, tokens.dtype)
    heads = [torch.stack(parts) for parts in heads]
    weights = [torch.randn(part.shape, generator=generator) for part in heads]
    sum((part * weight).sum() for part, weight in zip(heads, weights, strict=True)).backward()
    want = torch.zeros(len(tokens), k, N, D)
    for block, weight in zip(made.blocks, weights, strict=True):
        b, t = block.token_index.shape
        cells = weight.permute(1, 3, 0, 2, 4).reshape(b * t, k, N, D)  # of (k, b, N, t, D)
        want[block.token_index.flatten()[block.token_cells]] = cells[block.token_cells]
    assert torch.equal(tokens.grad.view(want.shape), want)


@given(masks, st.integers(1, 3))
@thorough
def test_extra_tokens_take_no_part(mask, extra):
    """Whatever they are: they are in no block, and no gradient comes to them."""
    made, k, N, D = Unpadding.from_mask(mask), 2, 2, 1
    more = dataclasses.replace(made, num_extra_tokens=extra, cache={})
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(
        len(made.indices) + extra, k * N * D, generator=generator, requires_grad=True
    )
    tokens.data[-extra:] = float("nan")
    blocks = split_heads(tokens, more, k, N, tokens.dtype)
    for parts, want in zip(
        blocks, split_heads(tokens[:-extra], made, k, N, tokens.dtype), strict=True
    ):
        assert all(map(torch.equal, parts, want))
    merged = merge_heads([v for _, v in blocks], more, tokens.dtype)
    assert merged.shape == (len(tokens), N * D) and merged.isfinite().all()
    assert torch.equal(merged[:-extra], merge_heads([v for _, v in blocks], made, tokens.dtype))
    merged.backward(torch.randn(merged.shape, generator=generator))
    assert not tokens.grad[-extra:].any() and not tokens.grad[:, : N * D].any()
    states = made.unpad(mask).double()
    assert torch.equal(more.append_extra(states), torch.cat([states, torch.zeros(extra)]))


def test_an_accelerator_gets_one_block():
    mask = torch.tensor([[1] * 500, *[[1] * 10 + [0] * 490] * 9])
    made = Unpadding.from_mask(mask, torch.device("meta"))
    assert len(made.blocks) == 1 and len(made.indices) == 590
    assert made.to("meta").blocks[0].token_index.shape == (10, 500)
    assert len(Unpadding.from_mask(mask).blocks) == len(Unpadding.from_mask(mask, CPU).blocks) == 2


def test_gather_equals_indexing_to_the_second_digit_of_a_finite_difference():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index, inverse = torch.tensor([3, 0, 4]), torch.tensor([1, 0, 0, 0, 2])
    unused = torch.tensor([1, 2])
    assert torch.autograd.gradcheck(lambda x: Gather.apply(x, index, inverse, unused), (x,))


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
