"""The clipped probability ratio of PPO (arXiv 1707.06347), a token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from fedgrpo.grpo.learning.losses.aggregation import (
    constant,
    micro_batch_mean,
    sequence_mean,
    token_mean,
)
from fedgrpo.grpo.learning.losses.base import Positive, Surrogate, TokenBatch, register_loss


def pessimistic(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Surrogate:
    """-min(r A, clip(r) A), and where that stops the gradient; r of shape (B, T) or (B, 1)."""
    cut = ratio.clamp(1 - clip_low, 1 + clip_high)
    return Surrogate(
        -torch.minimum(ratio * advantages, cut * advantages),
        (cut > ratio) & (advantages < 0),
        (cut < ratio) & (advantages > 0),
    )


@register_loss("grpo", aggregate=sequence_mean, batch_wide=False)
@register_loss("dr_grpo", aggregate=constant, batch_wide=False)
@register_loss("dapo", aggregate=token_mean, batch_wide=False)
@register_loss("bnpo", aggregate=micro_batch_mean, batch_wide=True)
def clipped(batch: TokenBatch, *, clip_low: float = 0.2, clip_high: float = 0.28) -> Surrogate:
    """-min(r A, clip(r) A) by four divisors: GRPO (arXiv 2402.03300), Dr. GRPO (2503.20783), DAPO
    (2503.14476), whose higher upper bound is the default, and TRL's ``bnpo``.
    """
    return pessimistic(batch.ratio, batch.advantages, clip_low, clip_high)


@register_loss("dual_clip", aggregate=token_mean, batch_wide=False)
def dual_clip(
    batch: TokenBatch, *, clip_low: float = 0.2, clip_high: float = 0.2, ceiling: Positive = 3.0
) -> Surrogate:
    """Clipped as PPO, and where A < 0 never more than -ceiling A (arXiv 1912.09729).

    PPO's own clip leaves r A unbounded where a bad token has become likelier. ``high`` counts these
    too.
    """
    inner = pessimistic(batch.ratio, batch.advantages, clip_low, clip_high)
    limit = torch.where(batch.advantages < 0, -ceiling * batch.advantages, torch.inf)
    return Surrogate(torch.minimum(inner.loss, limit), inner.low, inner.high | (inner.loss > limit))
