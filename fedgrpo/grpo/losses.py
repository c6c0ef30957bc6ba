"""Losses: one pure function a method over (batch, tokens) tensors, chosen by name.

All share the clipped probability ratio of PPO (arXiv 1707.06347) and differ in the divisor. The
divisor is that of the whole optimiser batch, given by the caller, so that splitting a batch into
micro-batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedgrpo.registry import Registry

LOG_RATIO_LIMIT = 20.0
"""|log ratio| is clamped here before exp, so that one token cannot overflow a step."""

Aggregator = Callable[[Tensor, Tensor, "BatchTotals"], Tensor]
"""Sums per-token losses (batch, tokens) under a mask into a scalar, by the batch's totals."""

LOSSES: Registry[Aggregator] = Registry("grpo.loss")
register_loss = LOSSES.register


@dataclass(frozen=True)
class BatchTotals:
    """Size of the whole optimiser batch: what token losses are divided by.

    Attributes
    ----------
    sequences:
        Completions.
    tokens:
        Completion tokens that count.
    max_length:
        Longest completion that the settings allow.
    """

    sequences: int
    tokens: int
    max_length: int


@dataclass(frozen=True)
class LossResult:
    """A scalar to differentiate, and detached figures about it."""

    loss: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LossOptions:
    """Options of :func:`compute_loss`, under the names of :class:`fedgrpo.settings.GRPOSettings`.

    Attributes
    ----------
    clip_low, clip_high:
        The ratio is clipped to [1 - clip_low, 1 + clip_high].
    kl_weight:
        Weight of the KL penalty.
    totals:
        Size of the whole optimiser batch; None takes that of the call.
    max_completion_length:
        Length limit for the constant divisor where there are no totals; None takes the width given.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_weight: float = 0.0
    totals: BatchTotals | None = None
    max_completion_length: int | None = None


def compute_loss(
    name: str,
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logps: Tensor | None = None,
    **options: Any,
) -> LossResult:
    """Clipped policy loss with an optional KL penalty.

    Parameters
    ----------
    name:
        ``grpo`` (mean over sequences of the mean over tokens), ``dr_grpo`` (constant divisor) or
        ``dapo`` (tokens).
    logps, old_logps, ref_logps:
        Log-probabilities under the policy, the sampler and the reference, shape (batch, tokens).
    advantages:
        Shape (batch,).
    mask:
        Bool, shape (batch, tokens): the tokens that count.
    options:
        ``clip_low``, ``clip_high`` (0.2, 0.28), ``kl_weight`` (0), ``totals`` (BatchTotals of the
        optimiser batch; by default of this call), ``max_completion_length`` (by default the width
        given).
    """
    aggregate = LOSSES[name]
    chosen = LossOptions(**options)
    length = chosen.max_completion_length or mask.shape[1]
    totals = chosen.totals or BatchTotals(len(mask), int(mask.sum()), length)
    log_ratio = (logps - old_logps).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio, advantage = log_ratio.exp(), advantages[:, None]
    clipped = ratio.clamp(1 - chosen.clip_low, 1 + chosen.clip_high)
    per_token = -torch.minimum(ratio * advantage, clipped * advantage)
    metrics = _clip_metrics(clipped - ratio, advantage, mask)
    if ref_logps is not None:
        divergence = k3(logps, ref_logps)
        if chosen.kl_weight:
            # Times the ratio: k3's own gradient is a biased one of the KL divergence.
            per_token = per_token + chosen.kl_weight * divergence * ratio
        metrics["kl"] = float((divergence.detach() * mask).sum() / mask.sum().clamp(min=1))
    return LossResult(aggregate(per_token, mask, totals), metrics)


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Per-token estimate of KL(policy || reference), non-negative: exp(d) - d - 1 with d = ref -
    policy.

    Source: J. Schulman, "Approximating KL divergence" (2020); used in GRPO, arXiv 2402.03300.
    """
    difference = (ref_logps - logps).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return difference.exp() - difference - 1


@torch.no_grad()
def _clip_metrics(change: Tensor, advantage: Tensor, mask: Tensor) -> dict[str, float]:
    """Shares of tokens whose gradient the clip stops: raised from below, cut from above."""
    count = mask.sum().clamp(min=1)
    low = ((change > 0) & (advantage < 0) & mask).sum() / count
    high = ((change < 0) & (advantage > 0) & mask).sum() / count
    return {"clip_low": float(low), "clip_high": float(high)}


@register_loss("grpo")
def _sequence_mean(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Mean over sequences of the mean over tokens (arXiv 2402.03300)."""
    return ((per_token * mask).sum(1) / mask.sum(1).clamp(min=1)).sum() / totals.sequences


@register_loss("dr_grpo")
def _constant(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Sum over tokens by sequences times the length limit: no length bias (arXiv 2503.20783)."""
    return (per_token * mask).sum() / (totals.sequences * totals.max_length)


@register_loss("dapo")
def _token_mean(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Sum over tokens by the tokens of the optimiser batch (arXiv 2503.14476)."""
    return (per_token * mask).sum() / max(totals.tokens, 1)
