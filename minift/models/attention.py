"""Attention within the rows of a padding-free batch, and dropout (see unpadding.py).

Linear layers and norms take the P tokens as they are, (P, H). Attention takes the same rows as
blocks, (b, N, t, D), each of which is one ordinary product of matrices:

    (P, 3H) --split_heads--> q, k, v (b, N, t, D) a block --attention--> ... --merge_heads--> (P, H)

Axes, as they are named in the comments:

    B  rows of a batch          P  real tokens of the batch, with a device's extra ones
    T  positions of a row       N  attention heads
    H  hidden size              D  size of a head, H / N
    b, t  the same as B and T, of one block of rows of similar length
    k  what stands side by side for a token: 3 for queries, keys and values, 2 without queries
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minift.models.unpadding import Unpadding


def attention(
    states: Tensor,
    unpadding: Unpadding,
    N: int,
    p: float,
    first_query: Tensor | None = None,
    biases: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Compute softmax(Q K^T / sqrt(D)) V within each row (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        states: (P, 3H), queries, keys and values of all tokens; or (P, 2H), keys and values, if
            the queries are in `first_query`.
        unpadding: where the rows are.
        N: number of heads.
        p: dropout of the attention weights.
        first_query: (B, H), the queries of each row's first position, longest row first.
        biases: what is added to the scores of each block, instead of `attention_biases`.

    Returns:
        (P, H), or (B, H) with `first_query`.
    """
    # A processor computes small products and softmax faster in fp32 than in 16 bits.
    dtype = torch.promote_types(states.dtype, torch.float32) if states.is_cpu else states.dtype
    biases = attention_biases(unpadding) if biases is None else biases
    blocks = split_heads(states, unpadding, 3 if first_query is None else 2, N, dtype)
    queries: Sequence[Tensor | None] = [None] * len(blocks)
    if first_query is not None:
        queries = first_query.to(dtype).split([len(block[0]) for block in blocks])
    contexts = []
    with torch.autocast("cpu", enabled=False):
        for block, bias, first in zip(blocks, biases, queries, strict=True):
            k, v = block[-2], block[-1]  # (b, N, t, D)
            q = block[0] if first is None else first.view(len(first), N, 1, -1)  # (b, N, t|1, D)
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (b, N, t|1, t)
            if bias is not None:
                scores += bias
            weights = dropout(scores.softmax(-1), p, training=True)
            contexts.append(weights.to(v.dtype) @ v)  # (b, N, t|1, D)
    if first_query is None:
        return merge_heads(contexts, unpadding, states.dtype)
    return torch.cat([context.flatten(1) for context in contexts]).to(states.dtype)


def attention_biases(unpadding: Unpadding) -> list[Tensor | None]:
    """For each block (b, 1, 1, t), added to scores: the lowest number where nothing may look."""

    def bias(mask: Tensor) -> Tensor:
        hidden = ~mask[:, None, None, :]
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, lowest)

    if "biases" not in unpadding.cache:
        masks = [block.mask for block in unpadding.blocks]
        unpadding.cache["biases"] = [None if mask is None else bias(mask) for mask in masks]
    return unpadding.cache["biases"]


# ---------------------------------------------------------------------- between tokens and blocks


def split_heads(
    x: Tensor, unpadding: Unpadding, k: int, N: int, dtype: torch.dtype
) -> list[tuple[Tensor, ...]]:
    """(P, k * N * D), for example queries, keys and values, to k of (b, N, t, D) for each block.

    One gather does what padding, reshaping and transposing would do in three passes.
    """
    D = x.shape[1] // (k * N)
    index = head_index(unpadding, k, N)
    flat = Gather.apply(x.reshape(-1, D), index.of_cells, index.of_tokens, index.extra).to(dtype)
    shapes = [(len(b.token_index), N, b.token_index.shape[1], D) for b in unpadding.blocks]
    heads = iter(flat.split([math.prod(shape[:-1]) for shape in shapes for _ in range(k)]))
    return [tuple(next(heads).view(shape) for _ in range(k)) for shape in shapes]


def merge_heads(blocks: Sequence[Tensor], unpadding: Unpadding, dtype: torch.dtype) -> Tensor:
    """(b, N, t, D) for each block to (P, N * D); extra tokens get some other token's numbers."""
    N, D = blocks[0].shape[1], blocks[0].shape[3]
    index = head_index(unpadding, 1, N)
    flat = torch.cat([block.reshape(-1, D) for block in blocks]).to(dtype)
    return Gather.apply(flat, index.of_tokens, index.of_cells, index.padding).view(-1, N * D)


class HeadIndex(NamedTuple):
    """Between (P, k, N) and (k, b, N, t) of all blocks, both flattened; D numbers stand at each.

    Attributes:
        of_cells: for each of the latter, which of the former it is.
        of_tokens: for each of the former, which of the latter it is; anything for extra tokens.
        padding: which of the latter are padding.
        extra: which of the former are extra tokens.
    """

    of_cells: Tensor
    of_tokens: Tensor
    padding: Tensor
    extra: Tensor


def head_index(unpadding: Unpadding, k: int, N: int) -> HeadIndex:
    """Return the index for k things a token and N heads; it is made once a batch."""
    if (k, N) in unpadding.cache:
        return unpadding.cache[k, N]
    device = unpadding.indices.device
    part, head = torch.arange(k, device=device), torch.arange(N, device=device)
    of_cells, of_tokens, padding = list[Tensor](), list[Tensor](), list[Tensor]()
    size = 0  # of the blocks before
    for block in unpadding.blocks:
        b, t = block.token_index.shape
        tokens = block.token_index[None, :, None, :] * k + part[:, None, None, None]  # (k, b, 1, t)
        of_cells.append((tokens * N + head[:, None]).flatten())  # (k * b * N * t,)
        for cells, places in ((block.token_cells, of_tokens), (block.padding_cells, padding)):
            row, column = cells[:, None, None] // t, cells[:, None, None] % t  # (cells, 1, 1)
            at = ((part[:, None] * b + row) * N + head) * t + column + size  # (cells, k, N)
            places.append(at.flatten())
        size += k * b * N * t
    extra = torch.arange(unpadding.num_extra_tokens * k * N, device=device)
    extra += len(unpadding.indices) * k * N  # they follow the P tokens
    of_tokens.append(torch.zeros_like(extra))
    index = HeadIndex(torch.cat(of_cells), torch.cat(of_tokens), torch.cat(padding), extra)
    unpadding.cache[k, N] = index
    return index


class Gather(torch.autograd.Function):
    """x[index], where each row of x counts at one place at most: its gradient is a gather too.

    Copies that pad a block may stand at others. Attention gives them no weight, so their gradient
    is zero and need not be added. torch's own backward pass fills a block of zeros and adds row
    after row to it, because it must allow for rows that were taken twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, unused: Tensor) -> Tensor:
        """
        Args:
            x: (rows, D).
            index: which rows to take, copies among them.
            inverse: for each row of x, its place in the result; anything for a row in `unused`.
            unused: rows of x that were not taken; their gradient is zero.
        """
        ctx.save_for_backward(inverse, unused)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        inverse, unused = ctx.saved_tensors
        return grads[0].index_select(0, inverse).index_fill_(0, unused, 0.0), None, None, None


# ------------------------------------------------------------------------- linear layers, dropout


def fused_linear(x: Tensor, *layers: nn.Module) -> Tensor:
    """(P, H) through k linear layers to (P, k * H): one large product instead of k small ones."""
    if not all(is_unmodified(layer) and layer.bias is not None for layer in layers):
        return torch.cat([layer(x) for layer in layers], 1)
    weight = torch.cat([layer.weight for layer in layers])  # type: ignore[misc]
    bias = torch.cat([layer.bias for layer in layers])  # type: ignore[misc]
    return F.linear(x, weight, bias)


def is_unmodified(layer: nn.Module) -> bool:
    """True for a linear layer that nobody has replaced, wrapped or put a hook on.

    Only then are its weight and bias all that calling it would use.
    """
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    return not any((*hooks, layer._backward_pre_hooks, nn.modules.module._has_any_global_hook()))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability p, scale the others by 1/(1-p) (Srivastava et al. 2014)."""
    return drop_elements(x, p) if training and p > 0.0 else x


drop_elements: Callable[[Tensor, float], Tensor] = F.dropout


@contextlib.contextmanager
def dropout_by(function: Callable[[Tensor, float], Tensor]) -> Iterator[None]:
    """Have `dropout` call `function(x, p)` within the block, for a device with a faster way."""
    global drop_elements
    before, drop_elements = drop_elements, function
    try:
        yield
    finally:
        drop_elements = before
