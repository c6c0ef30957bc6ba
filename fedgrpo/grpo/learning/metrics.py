"""What a step says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedgrpo.grpo.learning.update import UpdateFigures
from fedgrpo.grpo.rollout.experience import Experience, nanmean
from fedgrpo.grpo.rollout.policy import Policy, Sampled

DRIFT_SAMPLE = 16
"""Completions on which the divergence is measured, at most, and an eighth of all at most."""


@dataclass(frozen=True)
class BatchFigures:
    """Figures of a batch of completions, as it was sampled.

    Attributes
    ----------
    reward, zero_signal, truncated:
        Mean weighted reward of what could be judged; shares of groups without signal and of
        completions cut by the length limit. Before any group is replaced: they describe the policy
        and not the choice.
    rewards, reward_spreads:
        By reward function: mean over the completions that it applies to (NaN if none), and mean
        over groups of the standard deviation within the group.
    advantage_spread:
        Standard deviation of all advantages.
    entropy:
        Mean entropy of the next token in nats, estimated by the sampled tokens' own
        -log-probability, which is unbiased at the sampling temperature.
    kl:
        Mean k3 estimate per token of the policy from the reference.
    length:
        Mean completion length in tokens.
    figures:
        What the way of assigning credit says of itself, such as PPO's explained variance, and what
        else is measured of each prompt: ``metrics/NAME`` of users' own, NaN where none told.
    completions, tokens:
        Sampled for this batch, all that was thrown away included.
    """

    reward: float
    rewards: Mapping[str, float]
    reward_spreads: Mapping[str, float]
    zero_signal: float
    truncated: float
    advantage_spread: float
    entropy: float
    kl: float
    length: float
    figures: Mapping[str, float]
    completions: int
    tokens: int


@dataclass(frozen=True)
class StepMetrics(UpdateFigures, BatchFigures):  # Fields of the last base come first.
    """Figures of one optimiser step: its completions' (repeated where a batch serves several steps)
    and the update's.

    Attributes
    ----------
    step:
        Number of the step since the start of the round, from 1.
    seconds:
        Wall time of the step, sampling included.
    tokens_per_second:
        Sampled tokens over ``seconds``; 0 where a step re-used completions.
    """

    step: int
    seconds: float
    tokens_per_second: float

    def as_row(self) -> dict[str, Any]:
        """Plain values for a line of JSON."""
        return asdict(self)


def batch_figures(
    policy: Policy, first: Experience, final: Experience, sampled: Sampled
) -> BatchFigures:
    """Measure a batch of completions.

    Parameters
    ----------
    policy:
        The one that sampled.
    first, final:
        Before and after groups without signal were replaced.
    sampled:
        All that was sampled on the way.
    """
    rollout = final.rollout
    tokens = int(rollout.mask.sum())
    few = min(DRIFT_SAMPLE, max(1, len(final.advantages) // 8))
    spread = float(final.advantages.double().std()) if final.advantages.numel() > 1 else 0.0
    shares = {name: nanmean(values) for name, values in first.per_prompt().items()}
    shares.pop("reward")
    counted = first.rewards.total[first.rewards.counted()]
    return BatchFigures(
        reward=float(counted.mean()) if counted.size else 0.0,
        zero_signal=shares.pop("zero_signal"),
        truncated=shares.pop("truncated"),
        rewards=first.reward_means(),
        reward_spreads=first.reward_spreads(),
        advantage_spread=spread,
        entropy=-float((rollout.logps * rollout.mask).sum()) / max(tokens, 1),
        kl=policy.divergence(rollout, range(few)),
        length=tokens / len(rollout.mask),
        figures={**final.figures, **shares},
        completions=sampled.completions,
        tokens=sampled.tokens,
    )
