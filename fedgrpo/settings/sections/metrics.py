"""Figures about training that may leave a client: one table, which everything else reads.

A new metric is a row here and a value that :meth:`fedgrpo.grpo.rollout.experience.Experience.
per_prompt` measures. Site policies, releases, rows, console and picture follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedgrpo.settings.sections.data import RewardSettings

Span = tuple[float, float]


def _share(_: RewardSettings) -> Span:
    return 0.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure about training.

    Attributes
    ----------
    words:
        What it says, for the owner of a site.
    label, meaning, digits:
        How the console shows it; without a meaning it does not.
    panel, curve:
        Where the picture shows it, and under which label.
    span:
        Least and largest value that is reported. Public; what is outside is clipped.
    least_steps:
        Local steps a round below which it says nothing.
    last:
        Whether a round's last local step tells it, and not the mean of all.
    """

    words: str
    label: str = ""
    meaning: str = ""
    digits: int = 3
    panel: Literal["learning", "divergence", ""] = ""
    curve: str = ""
    span: Callable[[RewardSettings], Span] = _share
    least_steps: int = 1
    last: bool = False


METRICS: Mapping[str, Metric] = {
    "reward": Metric(
        words="how well the model's answers scored",
        label="Reward",
        meaning="in training, on the nodes' prompts",
        panel="learning",
        curve="reward in training",
        span=lambda reward: (reward.minimum, reward.maximum),
    ),
    "zero_signal": Metric(words="how often all answers to a prompt scored alike"),
    "truncated": Metric(words="how often an answer was cut off"),
    "kl": Metric(
        words="how far the model moved",
        label="KL to the round",
        meaning="nodes from the global adapter",
        digits=4,
        panel="divergence",
        curve="nodes from global",
        # Measured before each step: the first one starts from the global adapter itself, and the
        # mean over steps would halve the round's drift.
        least_steps=2,
        last=True,
    ),
}
"""By name, in the order of their coordinates in a release."""
