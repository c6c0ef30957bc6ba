"""Completions of the policy beside ones that another prompt helped to: Critique-GRPO."""

from __future__ import annotations

import torch
from torch import Tensor

from fedgrpo.grpo.learning.losses.aggregation import constant
from fedgrpo.grpo.learning.losses.base import Positive, Surrogate, TokenBatch, register_loss


@register_loss("critique_grpo", aggregate=constant, batch_wide=False)
def critique_grpo(
    batch: TokenBatch, *, refined: Tensor | None = None, shaping: Positive = 0.1
) -> Surrogate:
    """-r A, unclipped, and -A p / (p + shaping) where a critique helped (arXiv 2506.03106).

    p is the policy's own probability of a token under the plain prompt. The slope of the shaped
    weight by log p, p shaping / (p + shaping)^2, is largest at p = shaping: what the policy knows
    already and what it would hardly ever say both teach little. It needs no probability under the
    prompt with the critique.

    Parameters
    ----------
    refined:
        Bool, shape (B,), on the device of the log-probabilities: completions that a critique
        helped to. None: none.
    shaping:
        Where between 0 and 1 tokens teach most.
    """
    weight = batch.ratio
    if refined is not None:
        likelihood = batch.logps.exp()
        shaped = likelihood / (likelihood + shaping)
        weight = torch.where(refined[:, None], shaped, batch.ratio)
    nowhere = torch.zeros_like(batch.mask)
    return Surrogate(-weight * batch.advantages, nowhere, nowhere)
