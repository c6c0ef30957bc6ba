"""Batch-wide rules: the spread, or the mean too, is that of all prompts of the step."""

from __future__ import annotations

import numpy as np

from fedgrpo.grpo.learning.advantages.base import (
    STD_FLOOR,
    Floats,
    Outcomes,
    centred,
    register_advantage,
    whiten,
)


@register_advantage("lite_ppo", batch_wide=True)
def lite_ppo(outcomes: Outcomes) -> Floats:
    """(R - group mean) / std of all rewards of the batch (arXiv 2508.08221)."""
    rewards = outcomes.rewards
    spread = float(rewards.std(ddof=1)) if rewards.size > 1 else 0.0
    return np.divide(centred(rewards), max(spread, STD_FLOOR))


@register_advantage("reinforce_pp", batch_wide=True)
def reinforce_pp(outcomes: Outcomes) -> Floats:
    """REINFORCE++: R whitened over the tokens of the batch, no group baseline (arXiv 2501.03262).

    Every token of a completion has its reward as return (gamma = 1). The paper's KL penalty inside
    the reward is left to the loss, where its gradient is the same in expectation.
    """
    return whiten(outcomes.rewards, outcomes.lengths)


@register_advantage("reinforce_pp_baseline", batch_wide=True)
def reinforce_pp_baseline(outcomes: Outcomes) -> Floats:
    """R - group mean, whitened over the tokens of the batch (arXiv 2501.03262)."""
    return whiten(centred(outcomes.rewards), outcomes.lengths)
