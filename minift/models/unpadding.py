"""Padding-free batches: where the real tokens of a padded batch are.

A batch of texts is a block of ids (B, T), padded to its longest row; on MRPC nearly a third of it
is padding. Most of an encoder works on one token at a time, so the P real tokens can be stored one
after another, (P, H), and nothing is computed for padding. Only attention needs rows: it gets them,
longest first, in a few blocks of similar length (attention.py). All of this is index arithmetic,
done once per batch on the host and used by every layer.

The vocabulary is that of flash-attn's `bert_padding`: `indices`, unpad, pad. Its `cu_seqlens` are
`first_token_index` followed by P. Rows are sorted by length here; `original_order` undoes that.

Axes:

    B  rows of a batch          P  real tokens of the batch
    T  positions of a row       H  hidden size
    b, t  the same as B and T, of one block of rows

Three rows, of 3, 5 and 2 tokens, make P = 10:

    >>> input_ids = torch.tensor([[101, 7592, 102, 0, 0],
    ...                           [101, 2129, 2024, 2017, 102],
    ...                           [101, 102, 0, 0, 0]])
    >>> attention_mask = (input_ids != 0).long()
    >>> unpadding = Unpadding.from_mask(attention_mask)

The longest row, row 1, comes first. It occupies positions 5 to 9 of the flattened batch:

    >>> unpadding.indices.tolist()
    [5, 6, 7, 8, 9, 0, 1, 2, 10, 11]
    >>> unpadding.unpad(input_ids).tolist()
    [101, 2129, 2024, 2017, 102, 101, 7592, 102, 101, 102]

Each row begins at one of the ten tokens, and three numbers restore the order of the batch:

    >>> unpadding.first_token_index.tolist()
    [0, 5, 8]
    >>> unpadding.original_order.tolist()
    [1, 0, 2]
    >>> unpadding.first_token_index[unpadding.original_order].tolist()
    [5, 0, 8]

For attention, rows as short as these share one block. It is padded again, with copies of a row's
first token, and a mask that hides them:

    >>> (block,) = unpadding.blocks
    >>> block.token_index.tolist()
    [[0, 1, 2, 3, 4], [5, 6, 7, 5, 5], [8, 9, 8, 8, 8]]
    >>> block.mask.long().tolist()
    [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]

The hidden states of the ten tokens go back into a padded batch, here with H = 1:

    >>> unpadding.pad(torch.arange(10)[:, None])[..., 0].tolist()
    [[5, 6, 7, 0, 0], [0, 1, 2, 3, 4], [8, 9, 0, 0, 0]]
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minift.device import Device

# What each further block costs, some twenty small operations per layer, in cells of the attention
# matrix that could be computed in the same time.
BLOCK_COST = 6000


@dataclass
class Block:
    """Rows of similar length, padded to the longest of them.

    Attributes:
        token_index: (b, t), which of the P tokens each cell holds; a cell of padding holds its
            row's first token.
        mask: (b, t), True where a token may be attended to; None if it is True everywhere.
        token_cells: the cell, in the flattened (b * t), of each token of these rows.
        padding_cells: the other cells.
    """

    token_index: Tensor
    mask: Tensor | None
    token_cells: Tensor
    padding_cells: Tensor


@dataclass
class Unpadding:
    """Where the P real tokens of a padded batch are: row by row, the longest row first.

    Attributes:
        shape: (B, T) of the batch.
        indices: (P,), the position of each token in the flattened (B * T) batch.
        first_token_index: (B,), which of the P tokens begins each row, longest row first.
        original_order: (B,), the index that sorts those rows as they are in the batch.
        blocks: the rows, longest first, as attention computes them.
        num_extra_tokens: how many tokens of zeros are appended to the P inside the layers, for a
            device that prefers certain sizes (`Device.unpadded_size`). Nothing attends to them.
        cache: values that attention.py computes from the other attributes, once per batch.
        captured: what the output is to have, with what the model adds to it: "hidden_states",
            (P, H), before the first layer and behind each, and "attentions", (b, N, t, t), of each
            block of each layer.
    """

    shape: tuple[int, int]
    indices: Tensor
    first_token_index: Tensor
    original_order: Tensor
    blocks: list[Block]
    num_extra_tokens: int = 0
    cache: dict[Any, Any] = field(default_factory=dict)
    captured: dict[str, list[Tensor]] = field(default_factory=dict)

    def __getitem__(self, rows: Any) -> None:
        """Return None: of a slice of the batch's rows, the model finds the tokens itself."""

    @classmethod
    def from_mask(cls, attention_mask: Tensor, device: torch.device | None = None) -> "Unpadding":
        """Find the real tokens of a batch.

        A row's first position is always among the P, even where it is padding (as it is with
        padding on the left): a classifier reads it.

        Args:
            attention_mask: (B, T), not 0 for a real token, anywhere in its row. A mask outside host
                memory is not read, which would wait for its device: the batch stays padded
                (`identity`).
            device: where the model computes, by default where the mask is. An accelerator gets one
                block: there, starting an operation takes longer than computing it.
        """
        if not attention_mask.is_cpu:
            return cls.identity(attention_mask)
        B, T = attention_mask.shape
        visible = attention_mask.numpy() != 0
        visible[:, 0] |= ~visible.any(1)  # a row of padding alone: its first position sees itself
        computed = visible.copy()
        computed[:, 0] = True
        order = np.argsort(-computed.sum(1), kind="stable")
        row, column = np.nonzero(computed[order])  # (P,) each, longest row first
        lengths = np.bincount(row, minlength=B)
        first = lengths.cumsum() - lengths
        indices = order[row] * T + column
        visible = visible.ravel()[indices]  # (P,)
        on_host = device is None or device == attention_mask.device
        blocks = []
        for i, j in choose_blocks(lengths) if on_host else [(0, B)]:
            column = np.arange(lengths[i])
            occupied = column < lengths[i:j, None]  # (b, t)
            token_index = first[i:j, None] + np.where(occupied, column, 0)
            mask = occupied & visible[token_index]
            cells = np.flatnonzero(occupied), np.flatnonzero(~occupied)
            block = (token_index, None if mask.all() else mask, *cells)
            blocks.append(Block(*map(as_tensor, block)))
        original_order = as_tensor(np.argsort(order))
        return cls((B, T), as_tensor(indices), as_tensor(first), original_order, blocks)

    @classmethod
    def identity(cls, attention_mask: Tensor) -> "Unpadding":
        """Leave the batch padded: one block, and every position counts as a token (P = B * T)."""
        B, T = attention_mask.shape
        indices = torch.arange(B * T, device=attention_mask.device)
        rows = torch.arange(B, device=attention_mask.device)
        block = Block(indices.view(B, T), attention_mask != 0, indices, indices[:0])
        return cls((B, T), indices, rows * T, rows, [block])

    def to(self, device: Any, non_blocking: bool = False) -> "Unpadding":
        """Copy the indices to a device, as `Tensor.to` does."""
        if device == self.indices.device:
            return self

        def moved(x: Any) -> Any:
            return None if x is None else x.to(device, non_blocking=non_blocking)

        blocks = [Block(*map(moved, vars(block).values())) for block in self.blocks]
        index = (self.indices, self.first_token_index, self.original_order)
        indices, first, order = map(moved, index)
        return Unpadding(self.shape, indices, first, order, blocks, self.num_extra_tokens)

    def unpad(self, padded: Tensor) -> Tensor:
        """Take the real tokens out of a batch: (B, T) to (P,), (B, T, H) to (P, H)."""
        return padded.flatten(0, 1)[self.indices]

    def pad(self, tokens: Tensor) -> Tensor:
        """Put tokens back into a batch: (P, H) to (B, T, H), with zeros where none was computed."""
        B, T = self.shape
        padded, tokens = tokens.new_zeros(B * T, tokens.shape[1]), tokens[: len(self.indices)]
        return padded.index_copy(0, self.indices, tokens).view(B, T, -1)

    def pad_pairs(self, blocks: list[Tensor]) -> Iterator[Tensor]:
        """Put numbers for each two tokens back, layer by layer: (b, N, t, t) to (B, N, T, T).

        Differentiable. What the blocks have at their padding is left out.
        """
        N, T, n = blocks[0].shape[1], self.shape[1], len(self.blocks)
        indices = self.indices.tensor_split(self.first_token_index[1:].cpu())  # of each row
        for i in range(0, len(blocks), n):
            rows = itertools.chain(*blocks[i : i + n])  # (N, t, t) each
            squares = [pairs.new_zeros(N, T, T) for pairs in blocks[i : i + n] for _ in pairs]
            for square, at, pairs in zip(squares, indices, rows, strict=True):
                at = at % T  # the positions of the row's tokens
                square[:, at[:, None], at] = pairs[:, : len(at), : len(at)]
            yield torch.stack(squares)[self.original_order]

    def append_extra(self, tokens: Tensor) -> Tensor:
        """Append the extra tokens, of zeros: (P, H) to (P + num_extra_tokens, H).

        A batch (B, T, H), as modules with hooks give it, is unpadded first; what has its extra
        tokens already is returned as it is.
        """
        tokens = self.unpad(tokens) if tokens.dim() == 3 else tokens
        missing = len(self.indices) + self.num_extra_tokens - len(tokens)
        zeros = tokens.new_zeros(missing, *tokens.shape[1:])
        return torch.cat([tokens, zeros]) if missing else tokens

    def capture(self, name: str, value: Tensor) -> None:
        """Keep what somebody asked to see."""
        if name in self.captured:
            self.captured[name].append(value)

    def shown(self, attention_mask: Tensor | None) -> dict[str, Any]:
        """Return what was captured as transformers returns it, with zeros at padding.

        Returns:
            Of what was asked for: "hidden_states", (B, T, H) each, and "attentions", (B, N, T, T).
        """
        if not self.captured:
            return {}
        real = torch.ones(self.shape) if attention_mask is None else attention_mask
        one = (real == 0).to(self.indices.device)[:, None]  # (B, 1, T): is it padding?
        either = (one | one.mT)[:, None]  # (B, 1, T, T)
        states, weights = (self.captured.get(name) for name in ("hidden_states", "attentions"))
        return {
            "hidden_states": states and tuple(self.pad(x).masked_fill(one.mT, 0) for x in states),
            "attentions": weights
            and tuple(x.masked_fill(either, 0) for x in self.pad_pairs(weights)),
        }


def add_unpadding(batch: dict[str, Any], device: Device, precision: str) -> dict[str, Any]:
    """Add `unpadding` to a collated batch, while its mask is still in host memory.

    Args:
        batch: without an `attention_mask` (B, T) it is returned as it is.
        device: will compute with the batch, in this precision.
    """
    if "attention_mask" not in batch:
        return batch
    unpadding = Unpadding.from_mask(batch["attention_mask"], device.torch_device)
    num_tokens = len(unpadding.indices)
    unpadding.num_extra_tokens = device.unpadded_size(num_tokens, precision) - num_tokens
    return {**batch, "unpadding": unpadding}


def choose_blocks(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Divide rows, longest first, into the blocks [i, j) for which attention costs least.

    A block costs its number of rows times the square of its longest, plus BLOCK_COST. The best
    division of the first j rows follows from the best divisions of fewer (dynamic programming).
    """
    cells = lengths.astype(np.float64) ** 2
    best = np.zeros(len(lengths) + 1)
    divisions: list[list[tuple[int, int]]] = [[]]  # of the first 0, 1, 2, ... rows
    for j in range(1, len(lengths) + 1):
        costs = best[:j] + np.arange(j, 0, -1) * cells[:j] + BLOCK_COST
        i = int(costs.argmin())
        best[j] = costs[i]
        divisions.append([*divisions[i], (i, j)])
    return divisions[-1]


def as_tensor(array: np.ndarray | None) -> Any:
    """Return a tensor that shares the memory of an array; None stays None."""
    return None if array is None else torch.from_numpy(array)
