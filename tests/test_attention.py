"""Between tokens and blocks: each head of each token at its place, and its gradient at its own."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minift.models import unpadding
from minift.models.attention import Gather, merge_heads, split_heads
from minift.models.unpadding import Unpadding

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


def test_gather_equals_indexing_to_the_second_digit_of_a_finite_difference():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index, inverse = torch.tensor([3, 0, 4]), torch.tensor([1, 0, 0, 0, 2])
    unused = torch.tensor([1, 2])
    assert torch.autograd.gradcheck(lambda x: Gather.apply(x, index, inverse, unused), (x,))
