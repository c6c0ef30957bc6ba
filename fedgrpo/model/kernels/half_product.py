"""A product that a CPU without matrix units makes badly in half precision."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 4 * 2**20
"""Values of the matrix that are copied to float32 at once (16 MiB)."""


def backward_product(gradient: Tensor, weight: Tensor) -> Tensor:
    """``gradient @ weight``, shapes (rows, o) and (o, i), in the precision of both.

    On a CPU half precision is multiplied in float32, a part of the matrix at a time: for this
    layout, that of every backward pass, oneDNN has no kernel in bfloat16 without AMX, and what
    takes its place is 36 times as slow (docs/lab-log.md).
    """
    if gradient.device.type != "cpu" or gradient.dtype not in (torch.bfloat16, torch.float16):
        return gradient @ weight
    size = max(1, MOST // weight.shape[1])
    total = torch.zeros(len(gradient), weight.shape[1])
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        total.addmm_(gradient[:, part].float(), weight[part].float())
    return total.to(gradient.dtype)
