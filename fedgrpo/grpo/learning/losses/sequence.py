"""Ratios of whole completions: the geometric mean over their tokens."""

from __future__ import annotations

import math

import torch

from fedgrpo.grpo.learning.losses.aggregation import sequence_mean
from fedgrpo.grpo.learning.losses.base import Surrogate, TokenBatch, register_loss
from fedgrpo.grpo.learning.losses.clipped import pessimistic


@register_loss("gspo", aggregate=sequence_mean, batch_wide=False)
def gspo(batch: TokenBatch, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Surrogate:
    """-min(s A, clip(s) A) with s = exp(mean of log r over tokens) (arXiv 2507.18071)."""
    ratio = batch.mean_over_tokens(batch.log_ratio).exp()
    return pessimistic(ratio, batch.advantages, clip_low, clip_high)


@register_loss("gmpo", aggregate=sequence_mean, batch_wide=False)
def gmpo(
    batch: TokenBatch, *, clip_low: float = 1 - math.exp(-0.4), clip_high: float = math.exp(0.4) - 1
) -> Surrogate:
    """-A exp(mean of c) with each token's log r clipped pessimistically to c before the mean
    (arXiv 2507.20673, range (e^-0.4, e^0.4)).
    """
    lowest = math.log(1 - clip_low) if clip_low < 1 else -math.inf
    highest = math.log(1 + clip_high)
    good, bad = batch.advantages > 0, batch.advantages < 0
    high, low = good & (batch.log_ratio > highest), bad & (batch.log_ratio < lowest)
    clipped = torch.where(high, highest, torch.where(low, lowest, batch.log_ratio))
    return Surrogate(-batch.advantages * batch.mean_over_tokens(clipped).exp(), low, high)
