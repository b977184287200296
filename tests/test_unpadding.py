"""The arithmetic of leaving padding out: every real token once, nothing else, and the best cut."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minift.models import unpadding
from minift.models.unpadding import TakeRows, Unpadding, cut, missing

CPU = torch.device("cpu")

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


# ------------------------------------------------------------------------------------ which tokens


@given(masks)
@thorough
def test_every_real_token_is_there_once_and_no_other_but_first_positions(mask):
    index = Unpadding.of(mask).index
    assert len(index.unique()) == len(index)
    assert torch.equal(index.sort().values, read(mask).flatten().nonzero().flatten())


@given(masks)
@thorough
def test_rows_stay_together_and_in_order_the_longest_first(mask):
    B, T = mask.shape
    made = Unpadding.of(mask)
    rows, columns = made.index // T, made.index % T
    order = rows.unique_consecutive()
    assert len(order) == B, "each row in one piece"
    lengths = read(mask).sum(1)[order]
    assert (lengths.diff() <= 0).all()
    same_row = rows.diff() == 0
    assert (columns.diff()[same_row] > 0).all()
    assert [len(block.token) for block in made.blocks] != [] and made.shape == (B, T)


@given(masks)
@thorough
def test_first_positions_are_found_and_put_back_in_the_order_of_the_batch(mask):
    B, T = mask.shape
    made = Unpadding.of(mask)
    assert torch.equal(made.index[made.first][made.back], torch.arange(B) * T)


@given(masks)
@thorough
def test_pad_undoes_unpad(mask):
    B, T = mask.shape
    block = torch.arange(1, B * T + 1).view(B, T)
    made = Unpadding.of(mask)
    back = made.pad(made.unpad(block)[:, None].double())[..., 0]
    assert torch.equal(back, torch.where(read(mask), block, 0).double())


@given(masks)
@thorough
def test_a_block_hides_all_but_the_real_tokens_of_its_row(mask):
    """A first position that is padding is computed and yet looked at by nobody.

    Unless there is nothing else in its row: then it looks at itself, so that all is finite.
    """
    T = mask.shape[1]
    made = Unpadding.of(mask)
    seen = []
    for block, bias in zip(made.blocks, made.biases(), strict=True):
        rows = made.index[block.token] // T
        assert (rows == rows[:, :1]).all(), "padding is filled with a token of the same row"
        lowest = torch.finfo(torch.float32).min
        hidden = torch.zeros_like(rows) if bias is None else bias[:, 0, 0]
        assert ((hidden == 0) | (hidden == lowest)).all()
        seen.append(made.index[block.token[hidden == 0]])
    seen = torch.cat(seen)
    wanted = mask.clone()
    wanted[mask.sum(1) == 0, 0] = 1
    assert torch.equal(seen.sort().values, wanted.flatten().nonzero().flatten())


# ------------------------------------------------------------------------------ spread and collect


@given(masks, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
@thorough
def test_merge_heads_undoes_split_heads(mask, k, N, D):
    made = Unpadding.of(mask)
    packed = torch.randn(len(made.index), k * N * D, generator=torch.Generator().manual_seed(0))
    spread = made.split_heads(packed, k, N, packed.dtype)
    for part in range(k):
        back = made.merge_heads([block[part] for block in spread], packed.dtype)
        assert torch.equal(back, packed.view(-1, k, N * D)[:, part])


@given(masks)
@thorough
def test_split_heads_puts_each_head_of_each_token_where_its_block_says(mask):
    made, k, N, D = Unpadding.of(mask), 3, 2, 2
    packed = torch.arange(len(made.index) * k * N * D, dtype=torch.float64).view(-1, k * N * D)
    for block, parts in zip(made.blocks, made.split_heads(packed, k, N, packed.dtype), strict=True):
        b, t = block.token.shape
        want = packed[block.token].view(b, t, k, N, D).permute(2, 0, 3, 1, 4)  # (k, b, N, t, D)
        assert torch.equal(torch.stack(parts), want)


@given(masks)
@thorough
def test_gradients_go_the_way_back_and_blanks_get_none(mask):
    """As torch's own indexing has them, where what stands at blanks carries no gradient."""
    made, N, D = Unpadding.of(mask), 2, 2
    generator = torch.Generator().manual_seed(1)
    blocks = [
        torch.randn(len(block.token), N, block.token.shape[1], D, generator=generator)
        for block in made.blocks
    ]
    blocks = [block.requires_grad_() for block in blocks]
    collected = made.merge_heads(blocks, torch.float32)
    weight = torch.randn(collected.shape, generator=generator)
    (collected * weight).sum().backward()
    for block, tensor in zip(made.blocks, blocks, strict=True):
        b, t = block.token.shape
        grad = tensor.grad.transpose(1, 2).reshape(b * t, N * D)
        assert not grad[block.blank].any()
        assert torch.equal(grad[block.place], weight[block.token.flatten()[block.place]])
        every = torch.cat([block.place, block.blank]).sort().values
        assert torch.equal(every, torch.arange(b * t)), "each place is a token's or blank"


@given(masks)
@thorough
def test_split_heads_gives_each_token_the_gradient_of_its_own_place(mask):
    """The copies that fill up blanks are never looked at, and what they would add is left out."""
    made, k, N, D = Unpadding.of(mask), 2, 2, 1
    generator = torch.Generator().manual_seed(2)
    packed = torch.randn(len(made.index), k * N * D, generator=generator, requires_grad=True)
    spread = made.split_heads(packed, k, N, packed.dtype)
    spread = [torch.stack(parts) for parts in spread]
    weights = [torch.randn(part.shape, generator=generator) for part in spread]
    sum((part * weight).sum() for part, weight in zip(spread, weights, strict=True)).backward()
    want = torch.zeros(len(packed), k, N, D)
    for block, weight in zip(made.blocks, weights, strict=True):
        b, t = block.token.shape
        cells = weight.permute(1, 3, 0, 2, 4).reshape(b * t, k, N, D)  # of (k, b, N, t, D)
        want[block.token.flatten()[block.place]] = cells[block.place]
    assert torch.equal(packed.grad.view(want.shape), want)


@given(masks, st.integers(1, 3))
@thorough
def test_rows_that_fill_up_take_no_part(mask, fill):
    """Whatever they are: blocks have nothing of them, and no gradient comes to them."""
    made, k, N, D = Unpadding.of(mask), 2, 2, 1
    more = dataclasses.replace(made, fill=fill, kept={})
    generator = torch.Generator().manual_seed(3)
    packed = torch.randn(len(made.index) + fill, k * N * D, generator=generator, requires_grad=True)
    packed.data[-fill:] = float("nan")
    blocks = more.split_heads(packed, k, N, packed.dtype)
    for parts, want in zip(
        blocks, made.split_heads(packed[:-fill], k, N, packed.dtype), strict=True
    ):
        assert all(map(torch.equal, parts, want))
    collected = more.merge_heads([v for _, v in blocks], packed.dtype)
    assert collected.shape == (len(packed), N * D) and collected.isfinite().all()
    assert torch.equal(collected[:-fill], made.merge_heads([v for _, v in blocks], packed.dtype))
    collected.backward(torch.randn(collected.shape, generator=generator))
    assert not packed.grad[-fill:].any() and not packed.grad[:, : N * D].any()
    states = made.unpad(mask).double()
    assert torch.equal(more.filled(states), torch.cat([states, torch.zeros(fill)]))


def test_halves_on_a_processor_are_rounded_up_to_few_sizes():
    sizes = {P + missing(P) for P in range(1, 4097)}
    assert all(0 <= missing(P) <= P / 16 for P in range(1, 4097))
    for octave in range(4, 12):
        assert len([n for n in sizes if 2**octave <= n < 2 ** (octave + 1)]) == 16
    mask = torch.ones(7, 101)  # P is 707
    assert (
        Unpadding.of(mask, precision="bf16").fill
        == Unpadding.of(mask, CPU, "fp16").fill
        == 704 + 32 - 707
    )
    assert Unpadding.of(mask).fill == Unpadding.of(mask, CPU, "fp32").fill == 0


def test_an_accelerator_gets_one_block_and_no_filling():
    mask = torch.tensor([[1] * 500, *[[1] * 10 + [0] * 490] * 9])
    for precision in ("fp32", "bf16"):
        made = Unpadding.of(mask, torch.device("meta"), precision)
        assert len(made.blocks) == 1 and made.fill == 0 and len(made.index) == 590
        assert made.to("meta").blocks[0].token.shape == (10, 500)
    assert len(Unpadding.of(mask).blocks) == len(Unpadding.of(mask, CPU).blocks) == 2


def test_take_rows_equals_indexing_to_the_second_digit_of_a_finite_difference():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index, back = torch.tensor([3, 0, 4]), torch.tensor([1, 0, 0, 0, 2])
    blank = torch.tensor([1, 2])
    assert torch.autograd.gradcheck(lambda x: TakeRows.apply(x, index, back, blank), (x,))


# -------------------------------------------------------------------------------------- other ways


@given(masks)
@thorough
def test_the_whole_batch_is_one_block_in_its_own_order(mask):
    B, T = mask.shape
    made = Unpadding.whole(mask)
    block = torch.randn(B, T, 2)
    assert torch.equal(made.index, torch.arange(B * T))
    assert torch.equal(made.pad(block.view(B * T, 2)), block)
    assert torch.equal(made.index[made.first][made.back], torch.arange(B) * T)
    (only,) = made.blocks
    assert torch.equal(only.real, mask != 0) and not len(only.blank)


@given(masks)
@thorough
def test_moved_to_a_device_it_is_the_same(mask):
    made = Unpadding.of(mask)
    made.biases(), made.routes(1, 1)
    moved = made.to("cpu")
    assert moved.shape == made.shape and moved.kept == {}
    for name in ("index", "first", "back"):
        assert torch.equal(getattr(moved, name), getattr(made, name))
    for block, other in zip(made.blocks, moved.blocks, strict=True):
        for name, value in vars(block).items():
            got = getattr(other, name)
            assert (value is None and got is None) or torch.equal(value, got)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32])
def test_masks_of_any_number_type(dtype):
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    got, want = Unpadding.of(mask.to(dtype)), Unpadding.of(mask)
    assert torch.equal(got.index, want.index)


# --------------------------------------------------------------------------------------------- cuts


def cost(lengths, blocks):
    return sum((j - i) * int(lengths[i]) ** 2 + unpadding.BLOCK_COST for i, j in blocks)


@given(st.lists(st.integers(1, 128), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_way_to_cut_costs_less(lengths):
    """Against all of the up to 128 ways."""
    lengths = np.array(sorted(lengths, reverse=True))
    n, found = len(lengths), cut(lengths)
    assert [i for i, _ in found] == [0] + [j for _, j in found[:-1]] and found[-1][1] == n
    assert all(i < j for i, j in found)
    ways = itertools.chain.from_iterable(
        itertools.combinations(range(1, n), k) for k in range(n)
    )  # where a new block begins
    best = min(cost(lengths, itertools.pairwise((0, *way, n))) for way in ways)
    assert cost(lengths, found) == best


def test_rows_of_one_length_are_one_block():
    assert cut(np.full(32, 40)) == [(0, 32)]


def test_one_long_row_does_not_make_the_others_pay():
    assert cut(np.array([500, *[10] * 15])) == [(0, 1), (1, 16)]
