"""Signs that a local run learns nothing, in plain words and with a cure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

CONSTANT_STEPS = 10
"""Steps over which a reward must vary at least once."""


class RewardFigures(Protocol):
    """What a step says about its reward functions; :class:`StepMetrics` does."""

    @property
    def rewards(self) -> Mapping[str, float]:
        """Mean by function."""

    @property
    def reward_spreads(self) -> Mapping[str, float]:
        """Mean standard deviation within a group, by function."""


def constant_rewards(history: Sequence[RewardFigures], last: int = CONSTANT_STEPS) -> list[str]:
    """Name every reward function that tells no completion from another.

    Parameters
    ----------
    history:
        Figures of the steps so far, oldest first.
    last:
        Steps that count. Fewer say nothing.

    Returns
    -------
    list[str]
        One sentence with the fault and one with the cure for each function. The same fault gives
        the same words, so it is easily told once.
    """
    steps = list(history)[-last:]
    if len(steps) < last:
        return []
    dead = [
        name
        for name in steps[-1].rewards
        if all(step.reward_spreads.get(name, 0.0) == 0 for step in steps)
    ]
    return [_sentence(name, steps, last) for name in dead]


def _sentence(name: str, steps: Sequence[RewardFigures], last: int) -> str:
    if all(math.isnan(step.rewards.get(name, math.nan)) for step in steps):
        return (
            f"Reward {name!r} applied to no completion in {last} steps. "
            "Check that the prompts have the columns that it reads, or leave it out."
        )
    return (
        f"Reward {name!r} never varied within a group in {last} steps, so it teaches nothing. "
        "Use a finer reward, easier or harder prompts, or a larger grpo.group_size, or leave it "
        "out."
    )
