"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365): who pulled a prediction where.

The same numbers as captum's `LayerIntegratedGradients` at the embeddings with its defaults.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor


def integrated_gradients(
    model: Any, inputs: dict[str, Tensor], target: int, pad_id: int, special: Collection[int],
    steps: int = 50,
) -> dict[str, Any]:  # fmt: skip
    """Attribute a logit to the tokens of one row.

    From the row with padding in place of each token that is not special, to the row itself, the
    gradient of the logit at the embeddings is integrated by Gauss-Legendre quadrature.

    Args:
        inputs: what the model takes, (1, T) each.
        target: the number of the logit.

    Returns:
        "pulls" of each token, whose sum is the difference between the "logit" and that of the
        "baseline", but for an "error" of the quadrature.
    """
    ids = inputs["input_ids"]
    kept = torch.isin(ids, torch.tensor(sorted(special), dtype=ids.dtype))
    empty = torch.where(kept, ids, pad_id)
    embeddings = model.get_submodule(model.base_model_prefix).embeddings
    seen: list[Tensor] = []
    keep = embeddings.register_forward_hook(lambda module, given, got: seen.append(got.detach()))
    with torch.no_grad():
        ends = [float(model(**{**inputs, "input_ids": x}).logits[0, target]) for x in (empty, ids)]
    keep.remove()
    start, end = seen  # (1, T, H)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(end)
    for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        point = (start + float(node) * (end - start)).requires_grad_()
        handle = embeddings.register_forward_hook(lambda *_, point=point: point)
        logit = model(**inputs).logits[0, target]
        handle.remove()
        total += float(weight) * torch.autograd.grad(logit, point)[0]
    pulls = (total * (end - start)).sum(-1)[0]  # (T,)
    return {
        "target": target, "pulls": pulls.tolist(), "baseline": ends[0], "logit": ends[1],
        "error": abs(float(pulls.sum()) - (ends[1] - ends[0])), "steps": steps,
    }  # fmt: skip
