"""The form of a reward function, and the registry of built-in ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedgrpo.ground.errors import RewardError
from fedgrpo.ground.parts import Registry

RewardFunction = Callable[..., Any]
"""``f(prompts, completions, **columns) -> list[float | None]``, called with keywords, as in TRL.

Also ``async def``. One number a completion, larger is better; ``None`` says that the function does
not apply to it. The result is checked where it is used, because users write these functions.
"""

REWARDS: Registry[RewardFunction] = Registry("reward.functions", RewardError, awaits=True)
"""Built-in rewards. A name has no colon, which marks ``module:function``."""

register_reward = REWARDS.register
