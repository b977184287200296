"""Nothing is computed for padding: where the real tokens of a batch are, and how attention meets.

A batch of texts is a block of ids (B, T), padded to the longest row; on MRPC nearly a third of it
is padding. An encoder does most of its work on one token at a time, and for that the P real tokens
may stand one beside the other, (P, H). Only in attention a token meets the others of its row. There
the rows, longest first, are put into a few blocks of like length, (b, N, t, D) each, and taken out
again. All of it is index arithmetic, made once a batch and used by every layer.

Axes:

    B  rows of a batch          P  real tokens of the whole batch
    T  positions of a row       N  attention heads
    H  hidden size              D  size of a head, H / N
    b, t  the same as B and T, of one block
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What one block more costs, in cells of the attention matrix: some twenty small operations a layer.
BLOCK_COST = 6000


@dataclass
class Block:
    """Rows of like length, padded to the longest of them.

    Attributes:
        token: (b, t), which of the P tokens stands there; padding is filled with its row's first.
        real: (b, t), whether a token that may be attended to stands there; None if all may.
        place: (p,), where in the flattened (b * t) each token of these rows stands.
        blank: (b * t - p,), the places that are left.
    """

    token: Tensor
    real: Tensor | None
    place: Tensor
    blank: Tensor

    def bias(self) -> Tensor | None:
        """(b, 1, 1, t) to add to attention scores: the lowest number where nothing may look."""
        if self.real is None:
            return None
        hidden = ~self.real[:, None, None, :]
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, lowest)


@dataclass
class Unpadding:
    """Where the real tokens of a padded batch are; P of them, row by row, the longest row first.

    Attributes:
        shape: (B, T) of the batch.
        index: (P,) where each token stands in the flattened (B * T) batch.
        first: (B,) where each row's first position is among the P tokens, longest row first.
        back: (B,) the way from that order of rows to the batch's own.
        blocks: the rows as attention sees them.
        fill: how many rows of zeros stand behind the P while layers compute; see `filled`.
    """

    shape: tuple[int, int]
    index: Tensor
    first: Tensor
    back: Tensor
    blocks: list[Block]
    fill: int = 0
    kept: dict[Any, Any] = field(default_factory=dict)  # what all layers share

    @classmethod
    def of(
        cls, attention_mask: Tensor, device: torch.device | None = None, precision: str = "fp32"
    ) -> "Unpadding":
        """From a mask (B, T): not 0 for a token, wherever in the row that is.

        If the mask lies where it would have to be waited for, the batch stays as it is. A row's
        first position is always among the P: a classifier reads it, even where it is padding (as
        it is with padding on the left).

        Args:
            attention_mask: in host memory, as a collator makes it.
            device: what will compute with it, if not what the mask lies on. An accelerator gets
                one block: what takes it time is to be told of one more operation, not to do it.
            precision: of the products. In halves a CPU has the P rounded up by `filled`.
        """
        if not attention_mask.is_cpu:
            return cls.whole(attention_mask)
        B, T = attention_mask.shape
        mask = attention_mask.numpy() != 0
        mask[:, 0] |= ~mask.any(1)  # a row of padding alone has no answer, but looks at itself
        read = mask.copy()
        read[:, 0] = True
        order = np.argsort(-read.sum(1), kind="stable")
        row, column = np.nonzero(read[order])  # of each of the P tokens, longest row first
        lengths = np.bincount(row, minlength=B)
        starts = lengths.cumsum() - lengths
        index = order[row] * T + column
        seen = mask.ravel()[index]
        blocks = []
        here = device is None or device == attention_mask.device
        for i, j in cut(lengths) if here else [(0, B)]:
            there = np.arange(lengths[i]) < lengths[i:j, None]  # (b, t)
            token = starts[i:j, None] + np.where(there, np.arange(lengths[i]), 0)
            real = there & seen[token]
            places = np.flatnonzero(there), np.flatnonzero(~there)
            blocks.append(
                Block(host(token), None if real.all() else host(real), *map(host, places))
            )
        fill = missing(len(index)) if here and precision != "fp32" else 0
        return cls((B, T), host(index), host(starts), host(np.argsort(order)), blocks, fill)

    @classmethod
    def whole(cls, attention_mask: Tensor) -> "Unpadding":
        """The padded batch as it is: one block, and no token left out."""
        B, T = attention_mask.shape
        every = torch.arange(B * T, device=attention_mask.device)
        rows = torch.arange(B, device=attention_mask.device)
        block = Block(every.view(B, T), attention_mask != 0, every, every[:0])
        return cls((B, T), every, rows * T, rows, [block])

    def to(self, device: Any, non_blocking: bool = False) -> "Unpadding":
        """The same on another device."""
        if device == self.index.device:
            return self

        def moved(value: Any) -> Any:
            return None if value is None else value.to(device, non_blocking=non_blocking)

        blocks = [Block(*map(moved, vars(block).values())) for block in self.blocks]
        first, back = moved(self.first), moved(self.back)
        return Unpadding(self.shape, moved(self.index), first, back, blocks, self.fill)

    # -- between the batch and the P tokens -------------------------------------------------------

    def unpad(self, padded: Tensor) -> Tensor:
        """(B, T) to (P,)"""
        return padded.flatten()[self.index]

    def filled(self, packed: Tensor) -> Tensor:
        """(P, H) to (P + fill, H), with rows of zeros that attention never looks at.

        oneDNN, which multiplies halves on a CPU, compiles a kernel for each number of rows that it
        meets: some 50 ms a batch that has a P of its own, a sixth of MiniLM's step. Rounded up
        there are only 16 of them between one power of two and the next.
        """
        zeros = packed.new_zeros(self.fill, *packed.shape[1:])
        return torch.cat([packed, zeros]) if self.fill else packed

    def pad(self, packed: Tensor) -> Tensor:
        """(P, H) to (B, T, H), with zeros where nothing was computed."""
        B, T = self.shape
        block = packed.new_zeros(B * T, packed.shape[1])
        return block.index_copy(0, self.index, packed).view(B, T, -1)

    # -- between the P tokens and attention -------------------------------------------------------

    def split_heads(
        self, x: Tensor, k: int, N: int, dtype: torch.dtype
    ) -> list[tuple[Tensor, ...]]:
        """(P + fill, k * N * D), queries, keys, values side by side, to k of (b, N, t, D) a block.

        One gather does what padding, reshaping and transposing would do in three passes, and one
        concatenation brings all gradients back.
        """
        D = x.shape[1] // (k * N)
        into, out, _, fill = self.routes(k, N)
        flat = TakeRows.apply(x.reshape(-1, D), into, out, fill).to(dtype)
        shapes = [(len(block.token), N, block.token.shape[1], D) for block in self.blocks]
        parts = iter(flat.split([math.prod(shape[:-1]) for shape in shapes for _ in range(k)]))
        return [tuple(next(parts).view(shape) for _ in range(k)) for shape in shapes]

    def merge_heads(self, blocks: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """(b, N, t, D) a block to (P + fill, N * D), the way back; anything in the rows to fill."""
        N, D = blocks[0].shape[1], blocks[0].shape[3]
        into, out, blank, _ = self.routes(1, N)
        flat = torch.cat([block.reshape(-1, D) for block in blocks]).to(dtype)
        return TakeRows.apply(flat, out, into, blank).view(-1, N * D)

    def routes(self, k: int, N: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Row numbers, rows being the D numbers of one head of one token.

        Returns:
            for each row of the blocks (k, b, N, t) which row of (P + fill, k, N) it is; for each
            of the latter where it went; the rows of the blocks that are padding; and the rows of
            (P + fill, k, N) that went nowhere.
        """
        if (k, N) not in self.kept:
            into, out, blank = make_routes(self.blocks, k, N)
            fill = torch.arange(self.fill * k * N, device=out.device) + len(out)
            self.kept[k, N] = into, torch.cat([out, torch.zeros_like(fill)]), blank, fill
        return self.kept[k, N]

    def biases(self) -> list[Tensor | None]:
        """`Block.bias` of each block."""
        if "bias" not in self.kept:
            self.kept["bias"] = [block.bias() for block in self.blocks]
        return self.kept["bias"]


def make_routes(blocks: Sequence[Block], k: int, N: int) -> tuple[Tensor, Tensor, Tensor]:
    """See `Unpadding.routes`; computed on the device that the blocks are on."""
    device = blocks[0].token.device
    part, head = torch.arange(k, device=device), torch.arange(N, device=device)
    into, out, blank = [], [], []
    size = 0  # rows of the blocks before
    for block in blocks:
        b, t = block.token.shape
        tokens = block.token[None, :, None, :] * k + part[:, None, None, None]  # (k, b, 1, t)
        into.append((tokens * N + head[:, None]).flatten())

        def rows(cells: Tensor, b: int = b, t: int = t, size: int = size) -> Tensor:
            """Where the k * N rows of these cells of (b * t) are: (cells, k, N) flattened."""
            row, column = cells[:, None, None] // t, cells[:, None, None] % t
            return (((part[:, None] * b + row) * N + head) * t + column + size).flatten()

        out.append(rows(block.place))
        blank.append(rows(block.blank))
        size += k * b * N * t
    return torch.cat(into), torch.cat(out), torch.cat(blank)


class TakeRows(torch.autograd.Function):
    """x[index], where each row of x counts at one place at most: its gradient is a gather too.

    Copies that only fill up a block may stand at others. Attention gives them no weight, so that
    their gradient is zero and need not be added.

    torch's own backward pass fills a block of zeros and adds row after row to it, because it has
    to allow for rows that were taken twice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, blank: Tensor) -> Tensor:
        """
        Args:
            x: (rows, D).
            index: which rows to take, fillers among them.
            back: for each row of x, where it was taken to; anything for a row in `blank`.
            blank: rows of x that were not taken; their gradient is zero.
        """
        ctx.save_for_backward(back, blank)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        back, blank = ctx.saved_tensors
        return grads[0].index_select(0, back).index_fill_(0, blank, 0.0), None, None, None


def missing(P: int) -> int:
    """How many rows P lacks to one of the 16 sizes between two powers of two."""
    return -P % max(1, 2 ** (P.bit_length() - 5))


def cut(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Rows, longest first, cut into the blocks [i, j) that cost attention least.

    A block costs its rows times the square of its longest, plus BLOCK_COST; the best cut of the
    first j rows follows from the best cuts of fewer.
    """
    cells = lengths.astype(np.float64) ** 2
    best, begin = np.zeros(len(lengths) + 1), [0] * (len(lengths) + 1)
    for j in range(1, len(lengths) + 1):
        costs = best[:j] + np.arange(j, 0, -1) * cells[:j] + BLOCK_COST
        begin[j] = int(costs.argmin())
        best[j] = costs[begin[j]]
    blocks, j = [], len(lengths)
    while j:
        blocks.append((begin[j], j))
        j = begin[j]
    return blocks[::-1]


def host(array: np.ndarray) -> Tensor:
    """A tensor with the memory of an array."""
    return torch.from_numpy(array)
