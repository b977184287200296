"""Attention within the rows of a padding-free batch, and dropout (see unpadding.py).

Linear layers and norms take the P tokens as they are, (P, H). Attention takes them as a few padded
blocks of rows, (b, N, t, D), and computes each block with ordinary batched matrix products:

    (P, 3H) --split_heads--> q, k, v, each (b, N, t, D) --softmax--> (b, N, t, D) --merge_heads-->
    (P, H)

Axes, as they are named in the comments:

    B  rows of a batch          P  tokens of the batch: the real ones, then `num_extra_tokens`
    T  positions of a row       N  attention heads
    H  hidden size              D  size of a head, H / N
    b, t  the same as B and T, of one block of rows of similar length
    t|1   t, or 1 where only the query of each row's first position is used
    parts  vectors that are concatenated for each token: 3 (query, key, value) or 2 (key, value)
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minift.models.unpadding import Unpadding


def attention(
    states: Tensor, unpadding: Unpadding, N: int, dropout_p: float,
    first_query: Tensor | None = None, biases: Sequence[Tensor | None] | None = None,
) -> Tensor:  # fmt: skip
    """Compute softmax(Q K^T / sqrt(D)) V within each row (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        states: (P, 3H), queries, keys and values of all tokens; or (P, 2H), keys and values, if
            the queries are in `first_query`.
        unpadding: where each row's tokens are.
        N: number of heads.
        dropout_p: dropout probability of the attention weights; 0 in evaluation.
        first_query: (B, H), the queries of each row's first position, longest row first.
        biases: for each block, what is added to its scores; by default `attention_biases`.

    Returns:
        (P, H), or (B, H) with `first_query`.
    """
    # A CPU computes small products and softmax faster in fp32 than in 16 bits.
    dtype = torch.promote_types(states.dtype, torch.float32) if states.is_cpu else states.dtype
    biases = attention_biases(unpadding) if biases is None else biases
    blocks = split_heads(states, unpadding, 3 if first_query is None else 2, N, dtype)
    queries: Sequence[Tensor] = [block[0] for block in blocks]  # (b, N, t|1, D)
    if first_query is not None:
        first = first_query.to(dtype).view(len(first_query), N, 1, -1)  # (B, N, 1, D)
        queries = first.split([len(block[0]) for block in blocks])
    contexts = []
    with torch.autocast("cpu", enabled=False):
        for q, (*_, k, v), bias in zip(queries, blocks, biases, strict=True):  # (b, N, t, D)
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (b, N, t|1, t)
            if bias is not None:
                scores += bias
            weights = dropout(scores.softmax(-1), dropout_p, training=True)
            unpadding.capture("attentions", weights)
            contexts.append(weights.to(v.dtype) @ v)  # (b, N, t|1, D)
    if first_query is None:
        return merge_heads(contexts, unpadding, states.dtype)
    return torch.cat([context.flatten(1) for context in contexts]).to(states.dtype)


def attention_biases(unpadding: Unpadding) -> list[Tensor | None]:
    """Return what is added to each block's scores: 0, or at padding the lowest fp32 number.

    Each has the shape (b, 1, 1, t), or is None for a block without padding.
    """
    if "biases" not in unpadding.cache:
        lowest = torch.finfo(torch.float32).min
        unpadding.cache["biases"] = [
            None if block.mask is None else torch.where(block.mask, 0.0, lowest)[:, None, None]
            for block in unpadding.blocks
        ]
    return unpadding.cache["biases"]


# ---------------------------------------------------------------------- between tokens and blocks


def split_heads(
    x: Tensor, unpadding: Unpadding, parts: int, N: int, dtype: torch.dtype
) -> list[tuple[Tensor, ...]]:
    """Split (P, parts * N * D) into tensors (b, N, t, D) for each block, such as queries and keys.

    One gather does what padding, reshaping and transposing would do in three passes.
    """
    D = x.shape[1] // (parts * N)
    index = head_index(unpadding, parts, N)
    flat = Gather.apply(x.reshape(-1, D), index.of_cells, index.of_tokens, index.extra).to(dtype)
    shapes = [(len(b.token_index), N, b.token_index.shape[1], D) for b in unpadding.blocks]
    heads = iter(flat.split([math.prod(shape[:-1]) for shape in shapes for _ in range(parts)]))
    return [tuple(next(heads).view(shape) for _ in range(parts)) for shape in shapes]


def merge_heads(blocks: Sequence[Tensor], unpadding: Unpadding, dtype: torch.dtype) -> Tensor:
    """Merge the blocks' (b, N, t, D) into (P, N * D); the values of extra tokens are arbitrary."""
    N, D = blocks[0].shape[1], blocks[0].shape[3]
    index = head_index(unpadding, 1, N)
    flat = torch.cat([block.reshape(-1, D) for block in blocks]).to(dtype)
    return Gather.apply(flat, index.of_tokens, index.of_cells, index.padding).view(-1, N * D)


class HeadIndex(NamedTuple):
    """Indices between two orders of the same vectors, each of D numbers.

    By token, the order is that of (P, parts, N), flattened; by cell, that of (parts, b, N, t),
    flattened, for one block after the other; cells of padding repeat the vectors of a token.

    Attributes:
        of_cells: for each vector by cell, its number by token.
        of_tokens: for each vector by token, its number by cell; 0 for extra tokens.
        padding: numbers, by cell, of the vectors that are padding.
        extra: numbers, by token, of the vectors of extra tokens.
    """

    of_cells: Tensor
    of_tokens: Tensor
    padding: Tensor
    extra: Tensor


def head_index(unpadding: Unpadding, parts: int, N: int) -> HeadIndex:
    """Return the `HeadIndex` for so many vectors a token and N heads, computed once per batch."""
    if (parts, N) in unpadding.cache:
        return unpadding.cache[parts, N]
    device = unpadding.indices.device
    num_tokens = len(unpadding.indices)
    by_token = torch.arange((num_tokens + unpadding.num_extra_tokens) * parts * N, device=device)
    by_token = by_token.view(-1, parts, N)  # the numbers of each token's vectors
    extra = by_token[num_tokens:].flatten()
    of_cells, of_tokens, padding = list[Tensor](), list[Tensor](), list[Tensor]()
    size = 0  # number of vectors in the blocks before
    for block in unpadding.blocks:
        b, t = block.token_index.shape
        of_cells.append(by_token[block.token_index].permute(2, 0, 3, 1).flatten())
        by_cell = torch.arange(size, size + parts * b * N * t, device=device)
        by_cell = by_cell.view(parts, b, N, t).permute(1, 3, 0, 2).flatten(0, 1)  # (b*t, parts, N)
        of_tokens.append(by_cell[block.token_cells].flatten())
        padding.append(by_cell[block.padding_cells].flatten())
        size += by_cell.numel()
    of_tokens.append(torch.zeros_like(extra))
    index = HeadIndex(torch.cat(of_cells), torch.cat(of_tokens), torch.cat(padding), extra)
    unpadding.cache[parts, N] = index
    return index


class Gather(torch.autograd.Function):
    """Compute x[index] with a backward pass that is a gather too.

    A row of x may be taken several times: padding and extra tokens are copies. But no loss depends
    on the copies, so their gradient is zero, and the gradient of a row of x is that at one place of
    the result. torch's own backward pass fills a tensor with zeros and adds row after row to it,
    because it must allow for rows whose gradients add up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, unused: Tensor) -> Tensor:
        """Take rows of x.

        Args:
            x: (rows, D).
            index: which rows to take; some may be taken again as copies.
            inverse: for each row of x, its place in the result; ignored for a row in `unused`.
            unused: rows of x that do not count in the result; their gradient is zero.
        """
        ctx.save_for_backward(inverse, unused)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        inverse, unused = ctx.saved_tensors
        return grads[0].index_select(0, inverse).index_fill_(0, unused, 0.0), None, None, None


# ------------------------------------------------------------------------- linear layers, dropout


def fused_linear(x: Tensor, *layers: nn.Module) -> Tensor:
    """Apply several linear layers to (P, H), and concatenate: one large product for small ones."""
    if not all(is_unmodified(layer) and layer.bias is not None for layer in layers):
        return torch.cat([layer(x) for layer in layers], 1)
    weight = torch.cat([layer.weight for layer in layers])  # type: ignore[misc]
    bias = torch.cat([layer.bias for layer in layers])  # type: ignore[misc]
    return F.linear(x, weight, bias)


def is_unmodified(layer: nn.Module) -> bool:
    """Return True for an `nn.Linear` that nobody has replaced, wrapped or put a hook on.

    Only then does a call of the layer compute `F.linear` of its weight and bias and nothing else.
    """
    return type(layer) is nn.Linear and "forward" not in vars(layer) and not has_hooks(layer)


def has_hooks(module: nn.Module) -> bool:
    """Return True for a module that somebody watches with hooks, which see what goes in and out."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any((*hooks, module._backward_pre_hooks, nn.modules.module._has_any_global_hook()))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability p, scale the others by 1/(1-p) (Srivastava et al. 2014)."""
    return drop_elements(x, p) if training and p > 0.0 else x


# What `dropout` calls. A device that has a faster one sets it while it computes.
drop_elements: Callable[[Tensor, float], Tensor] = F.dropout
