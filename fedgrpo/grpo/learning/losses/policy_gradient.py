"""Weighted log-likelihoods and soft gates: no token's gradient is cut off."""

from __future__ import annotations

import torch

from fedgrpo.grpo.learning.losses.aggregation import sequence_mean, token_mean
from fedgrpo.grpo.learning.losses.base import Positive, Surrogate, TokenBatch, register_loss


@register_loss("reinforce", aggregate=token_mean, batch_wide=False)
def reinforce(batch: TokenBatch) -> Surrogate:
    """-A log p: the plain policy gradient, for completions of the policy itself (R. Williams,
    Machine Learning 8, 1992).
    """
    nowhere = torch.zeros_like(batch.mask)
    return Surrogate(-batch.advantages * batch.logps, nowhere, nowhere)


@register_loss("cispo", aggregate=token_mean, batch_wide=False)
def cispo(batch: TokenBatch, *, clip_low: float = 1.0, clip_high: float = 4.0) -> Surrogate:
    """-w A log p with w = clip(r), held constant, so that clipped tokens still teach (arXiv
    2506.13585).

    The paper clips from above only. The cap of 5 is that of ScaleRL (arXiv 2510.13786).
    """
    ratio = batch.ratio.detach()
    weight = ratio.clamp(1 - clip_low, 1 + clip_high)
    return Surrogate(-weight * batch.advantages * batch.logps, weight > ratio, weight < ratio)


@register_loss("sapo", aggregate=sequence_mean, batch_wide=False)
def sapo(batch: TokenBatch, *, positive: Positive = 1.0, negative: Positive = 1.05) -> Surrogate:
    """-(4 / tau) sigmoid(tau (r - 1)) A, a gate that closes smoothly, faster where A < 0 (arXiv
    2511.20347).

    Parameters
    ----------
    positive, negative:
        Temperature tau by the sign of A.
    """
    tau = torch.full_like(batch.advantages, negative).masked_fill(batch.advantages > 0, positive)
    gate = torch.sigmoid(tau * (batch.ratio - 1)) * (4 / tau)
    nowhere = torch.zeros_like(batch.mask)
    return Surrogate(-gate * batch.advantages, nowhere, nowhere)
