"""Group-local rules: a completion against the others of its own prompt."""

from __future__ import annotations

import numpy as np

from fedgrpo.grpo.learning.advantages.base import (
    STD_FLOOR,
    Floats,
    Outcomes,
    centred,
    register_advantage,
    rounding,
)


@register_advantage("grpo", batch_wide=False)
def grpo(outcomes: Outcomes) -> Floats:
    """(R - mean) / std of the group, sample standard deviation (arXiv 2402.03300)."""
    spread: Floats = outcomes.rewards.std(axis=1, ddof=1, keepdims=True)
    return np.divide(centred(outcomes.rewards), np.maximum(spread, STD_FLOOR))


@register_advantage("outcome", batch_wide=False)
def outcome(outcomes: Outcomes) -> Floats:
    """R as it is: the baseline comes from where credit is assigned, token by token."""
    return outcomes.rewards.copy()


@register_advantage("dr_grpo", batch_wide=False)
def dr_grpo(outcomes: Outcomes) -> Floats:
    """R - mean of the group, not divided (arXiv 2503.20783)."""
    return centred(outcomes.rewards)


@register_advantage("rloo", batch_wide=False)
def rloo(outcomes: Outcomes) -> Floats:
    """R - mean of the others of the group (arXiv 2402.14740).

    Computed as G / (G - 1) times (R - mean of all). Not divided by the spread of the others: that
    is zero as soon as they agree, and the advantage would explode.
    """
    group_size = outcomes.rewards.shape[1]
    advantages: Floats = centred(outcomes.rewards) * (group_size / (group_size - 1))
    return advantages


@register_advantage("rank", batch_wide=False)
def rank(outcomes: Outcomes) -> Floats:
    """2 - 4 (rank - 1) / (G - 1), rank 1 is best, ties share their mean rank (arXiv 2602.03876).

    Counted as won minus lost comparisons, where a difference within rounding is a tie: ranks would
    blow it up to a full step.
    """
    rewards = outcomes.rewards
    difference = rewards[:, :, None] - rewards[:, None, :]
    difference[np.abs(difference) <= rounding(rewards, axis=1)[:, :, None]] = 0.0
    advantages: Floats = np.sign(difference).sum(axis=2) * (2 / (rewards.shape[1] - 1))
    return advantages
