"""One token a row out of a distribution, by a number that was drawn beforehand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fedgrpo.grpo.rollout.choice.warping import PLAIN, Warping

BLOCK = 256
"""Columns of a vocabulary that are drawn from together."""


def choose(
    logits: Tensor,
    temperature: float,
    uniform: Tensor,
    warping: Warping = PLAIN,
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Token and its log-probability, both of shape (rows, 1).

    Parameters
    ----------
    logits:
        Float32, shape (rows, V).
    temperature:
        0 takes the most likely token, and reports its log-probability at 1.
    uniform:
        In [0, 1), float64, shape (rows, 1).
    warping, seen:
        What is kept, and which tokens there are already: see :meth:`Warping.applied`.
    """
    logits = logits / temperature if temperature else logits
    logps = warping.applied(logits, seen).log_softmax(-1)
    token = invert(logps.exp(), uniform) if temperature else logps.argmax(-1, keepdim=True)
    return token, logps.gather(1, token)


def uniforms(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1), float64, on the generator's device."""
    return torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one column a row in proportion to non-negative weights, shape (rows, V) to (rows, 1)."""
    return invert(probabilities, uniforms((len(probabilities), 1), generator))


def invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Map uniform numbers in [0, 1), float64, shape (rows, 1), to columns in proportion to
    non-negative weights, shape (rows, V); returns (rows, 1).

    Inverse transform in float64, first among blocks of columns and then within one:
    ``torch.multinomial`` draws a random number for every column, which with a vocabulary of 49,152
    takes four to twenty times as long. A column of weight zero is never drawn.
    """
    rows, columns = probabilities.shape
    if columns <= BLOCK:
        up_to = probabilities.cumsum(-1, dtype=torch.float64)
        return _first_above(up_to, uniform * up_to[:, -1:])
    blocks = -(-columns // BLOCK)
    padded = functional.pad(probabilities, (0, blocks * BLOCK - columns))
    weights = padded.view(rows, blocks, BLOCK)
    of_blocks = weights.sum(-1, dtype=torch.float64)
    up_to = of_blocks.cumsum(-1)
    point = uniform * up_to[:, -1:]
    block = _first_above(up_to, point)
    before = (up_to - of_blocks).gather(1, block)
    within = weights.take_along_dim(block[..., None], 1)[:, 0].cumsum(-1, dtype=torch.float64)
    return block * BLOCK + _first_above(within, (point - before).clamp(min=0))


def _first_above(up_to: Tensor, point: Tensor) -> Tensor:
    """First column whose sum so far exceeds the row's point, (rows, n) and (rows, 1) to (rows, 1).

    Points are kept under the last sum, so that rounding never points behind it.
    """
    last = up_to[:, -1:]
    below = torch.minimum(point, torch.nextafter(last, torch.zeros_like(last)))
    return torch.searchsorted(up_to, below, right=True)
