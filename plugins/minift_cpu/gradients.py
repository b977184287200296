"""The sum of gradients over processes, without the rows of embeddings that no batch has used."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    ReduceFlat = Callable[[list[Tensor]], Tensor]

EMBEDDING_ROWS = 8192  # more rows than any layer but an embedding has


def all_reduce_gradients(
    gradients: "Sequence[Tensor]", all_reduce_flat: "ReduceFlat"
) -> "Sequence[Tensor]":
    """Sum each tensor over all ranks, in place; see `Device.all_reduce_gradients`.

    Args:
        gradients: of the same shapes on all ranks.
        all_reduce_flat: the Device's method, which concatenates and sums.

    Returns:
        the sums, of an embedding's gradient only the rows that are not zero.
    """
    import torch

    rows = [nonzero_rows(g, all_reduce_flat) if is_embedding(g) else ... for g in gradients]
    selected = [g[index] for g, index in zip(gradients, rows, strict=True)]
    flat = all_reduce_flat([part.flatten() for part in selected])
    sums = torch._utils._unflatten_dense_tensors(flat, selected)
    for gradient, index, total in zip(gradients, rows, sums, strict=True):
        if index is ...:
            gradient.data = total.to(gradient.dtype)
        else:
            gradient[index] = total
    return sums


def is_embedding(gradient: "Tensor") -> bool:
    """Tell whether it is the gradient of an embedding, judging by its shape."""
    return gradient.dim() == 2 and len(gradient) > EMBEDDING_ROWS


def nonzero_rows(gradient: "Tensor", all_reduce_flat: "ReduceFlat") -> "Tensor":
    """Return the indices of the rows that are not zero on some rank, int64 of shape (rows,).

    A batch has some hundred tokens of a vocabulary of thirty thousand, and the embedding is half of
    a small model: sending its zeros would take as long as everything else.
    """
    import torch

    nonzero = gradient.contiguous().view(torch.uint8).amax(1) > 0  # byte by byte is fastest
    return all_reduce_flat([nonzero.int()]).nonzero()[:, 0]


def exchange_size(model: "nn.Module") -> int:
    """Count the numbers exchanged at once: gradients, and of tables the rows of a large batch."""
    return sum(
        EMBEDDING_ROWS * p.shape[1] if is_embedding(p) else p.numel() for p in model.parameters()
    )
