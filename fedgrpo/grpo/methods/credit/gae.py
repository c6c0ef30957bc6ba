"""Generalised advantage estimation and the value loss of PPO, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from fedgrpo.grpo.learning.advantages import STD_FLOOR


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv 1506.02438).

    delta_t = r_t + discount V_{t+1} - V_t and A_t = delta_t + discount trace A_{t+1}, where t + 1
    is the next token that counts; behind the last one V and A are 0.

    Parameters
    ----------
    rewards:
        Reward for each token, shape (N, T). Outcome rewards sit at the last token.
    values:
        Expected return before each token, shape (N, T).
    mask:
        Bool, shape (N, T): tokens that count.
    discount, trace:
        Gamma and lambda, in [0, 1].

    Returns
    -------
    Advantages, and returns (advantages + values) to learn values from; shape (N, T), zero where
    the mask is false.
    """
    advantages = torch.zeros_like(values)
    next_value = values.new_zeros(len(values))
    next_advantage = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        counts = mask[:, t]
        delta = rewards[:, t] + discount * next_value - values[:, t]
        advantage = delta + discount * trace * next_advantage
        next_value = torch.where(counts, values[:, t], next_value)
        next_advantage = torch.where(counts, advantage, next_advantage)
        advantages[:, t] = torch.where(counts, advantage, 0.0)
    return advantages, (advantages + values) * mask


def outcome_rewards(totals: Tensor, mask: Tensor) -> Tensor:
    """Put each completion's reward, shape (N,), at its last token; shape (N, T)."""
    last = mask.sum(1) - 1
    rewards = torch.zeros(mask.shape, dtype=totals.dtype)
    rewards[torch.arange(len(mask)), last] = totals
    return rewards


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 (n - 1) over the tokens that count; shape
    (N, T).
    """
    known = values[mask]
    if len(known) < 2:
        return torch.zeros_like(values)
    return (values - known.mean()) / known.std().clamp(min=STD_FLOOR) * mask


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> Tensor:
    """Half the mean over tokens of the larger of two squared errors: the value's own and that of
    the value kept within ``clip`` of the old one (arXiv 1707.06347 and its reference code).

    All tensors have shape (N, T); the result is a scalar.
    """
    kept = old_values + (values - old_values).clamp(-clip, clip)
    worse = torch.maximum((values - returns) ** 2, (kept - returns) ** 2)
    return 0.5 * (worse * mask).sum() / mask.sum().clamp(min=1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the tokens that count: 1 is a perfect critic, 0
    one that knows no more than the mean, below 0 a harmful one. 0 where returns do not vary.
    """
    known = returns[mask]
    spread = float(known.var(unbiased=False)) if len(known) else 0.0
    if spread == 0:
        return 0.0
    return 1.0 - float((known - values[mask]).var(unbiased=False)) / spread
