"""How the losses of tokens become one number: the divisor, the second axis of the family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BatchTotals:
    """Size of the whole optimiser batch: what token losses are divided by."""

    sequences: int
    """Completions."""
    tokens: int
    """Completion tokens that count."""
    max_length: int
    """Longest completion that the settings allow."""


Aggregator = Callable[[Tensor, Tensor, BatchTotals], Tensor]
"""Sums per-token losses (batch, tokens) under a mask into a scalar, by the batch's totals."""


def sequence_mean(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Mean over sequences of the mean over tokens (GRPO, arXiv 2402.03300)."""
    return ((per_token * mask).sum(1) / mask.sum(1).clamp(min=1)).sum() / totals.sequences


def constant(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Sum over tokens by sequences times the length limit: no length bias (arXiv 2503.20783)."""
    return (per_token * mask).sum() / (totals.sequences * totals.max_length)


def token_mean(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Sum over tokens by the tokens of the optimiser batch (DAPO, arXiv 2503.14476)."""
    return (per_token * mask).sum() / max(totals.tokens, 1)


def micro_batch_mean(per_token: Tensor, mask: Tensor, totals: BatchTotals) -> Tensor:
    """Mean over the tokens of this very batch, times its share of the optimiser batch's sequences.

    The share makes a sum over micro-batches of one size their plain mean, as in TRL.
    """
    share = len(mask) / totals.sequences
    return (per_token * mask).sum() / mask.sum().clamp(min=1) * share
