"""The form of a reward function, the registry of built-in ones, and metrics of users' own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.parts import Registry

RewardFunction = Callable[..., Any]
"""``f(prompts, completions, **columns) -> list[float | None]``, called with keywords, as in TRL.

Also ``async def``. One number a completion, larger is better; ``None`` says that the function does
not apply to it. The result is checked where it is used, because users write these functions.
"""

Function = TypeVar("Function", bound=RewardFunction)

REWARDS: Registry[RewardFunction] = Registry("reward.functions", RewardError, awaits=True)
"""Built-in rewards. A name has no colon, which marks ``module:function``."""

register_reward = REWARDS.register


@dataclass(frozen=True)
class OwnMetric:
    """A metric, with the range of one that declares nothing."""

    function: RewardFunction
    """``f(prompts, completions, **columns) -> list[float | None]``, as a reward is; a prompt's
    figure is the mean over its completions."""
    low: float = 0.0
    high: float = 1.0
    """Least and largest value that is reported. Public; what is outside is clipped."""

    def __post_init__(self) -> None:
        width = self.high - self.low  # Of two finite numbers it may overflow.
        if not (math.isfinite(width) and width > 0):
            name = getattr(self.function, "__name__", type(self.function).__name__)
            raise RewardError(
                f"metric {name!r} declares low = {self.low} and high = {self.high}, which is no "
                "range of finite width",
                cure="give two finite numbers, low below high",
            )

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest value."""
        return self.low, self.high


OWN_METRICS: Registry[OwnMetric] = Registry(
    "privacy.metrics", RewardError, kind=OwnMetric, awaits=True
)
"""Metrics of modules and files. Those that are built in are rows of a table:
:data:`fedgrpo.settings.METRICS`."""


def declare_metric(*, low: float = 0.0, high: float = 1.0) -> Callable[[Function], Function]:
    """Say of the decorated function, or class, between which values a metric is reported.

    Its noise grows with the width, so say no wider than it has to be. It follows from nothing
    private: never from the prompts.

    Raises
    ------
    RewardError
        If the ends are no finite numbers with ``low`` below ``high``, or too far apart for one.
    """

    def add(function: Function) -> Function:
        OWN_METRICS.declare(function, OwnMetric(function, float(low), float(high)))
        return function

    return add
