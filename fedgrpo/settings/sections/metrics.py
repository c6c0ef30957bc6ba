"""Figures about training that may leave a client: one table, which everything else reads.

A new metric is a row here and a value that :meth:`fedgrpo.grpo.rollout.experience.Experience.
per_prompt` measures. Site policies, releases, rows, console and picture follow. One of a user's own
needs no row: it is named with its module or file, and its coordinates follow those of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import PartName, brings_code
from fedgrpo.settings.sections.data import RewardSettings

Span = tuple[float, float]
KEY = "privacy.metrics"


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

OWN = "metrics/"
"""What the names of users' own metrics begin with, wherever figures stand beside each other."""


def own_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """Those of modules and files among metrics that settings or policies name, as they do."""
    return tuple(name for name in names if brings_code(name))


def figure_name(text: str) -> str:
    """What the figure of a user's own metric is called: its name and options without the module or
    file, whose folder is nobody's affair.
    """
    return OWN + PartName.read(text, KEY).short


def coordinates(names: Iterable[str]) -> tuple[str, ...]:
    """Figures of a release by name, in their order: the table, then users' own as they are named.

    Both sides derive it from the settings' text alone; no code is looked at.
    """
    return (*METRICS, *map(figure_name, own_metrics(names)))


def check_metrics(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse names that are neither of the table nor of a module or file, or cannot be read; raises
    SettingsError.
    """
    for name in names:
        if name not in METRICS and not PartName.read(name, KEY).place:
            raise SettingsError(
                f"{KEY} = {name!r} is unknown",
                cure=f"choose from {', '.join(METRICS)}; or name your own: package.module:function "
                "or path/to/file.py:function",
            )
    return names
