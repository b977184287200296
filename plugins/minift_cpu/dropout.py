"""Dropout in host memory, with few random numbers.

torch draws one random number an element, which takes a fifth of a training step. Here 64 random
bits serve four elements, 16 for each: p is rounded to a multiple of 2**-16, and the scale is the
exact inverse of the rounded probability. One number of torch's generator seeds the bits (SFC64,
numpy's fastest generator), so they repeat when that is seeded.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero elements with probability p, scale the others by 1/(1-p); any shape, any float type."""
    if not x.is_cpu or torch.compiler.is_compiling():
        return F.dropout(x, p)
    threshold = round(p * 65536)
    if threshold == 65536:
        return x * 0.0
    seed = int(torch.randint(2**63 - 1, ()))
    bits = np.random.SFC64(seed).random_raw((x.numel() + 3) // 4)
    kept = bits.view(np.uint16)[: x.numel()] >= threshold
    factor = kept * np.float32(65536 / (65536 - threshold))  # numpy is ten times as fast at this
    y = x * torch.from_numpy(factor).view(x.shape)  # fp32, also of 16-bit numbers
    # With autocast it may stay so: a sum in fp32 comes next.
    return y if torch.is_autocast_enabled("cpu") else y.to(x.dtype)
