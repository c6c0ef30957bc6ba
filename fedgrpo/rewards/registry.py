"""The form of a reward function, and the registry of built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fedgrpo.errors import RewardError

RewardFunction = Callable[..., Any]
"""``f(prompts, completions, **columns) -> list[float | None]``, called with keywords, as in TRL.

One number a completion, larger is better; ``None`` says that the function does not apply to it. The
result is checked where it is used, because users write these functions.
"""

_REWARDS: dict[str, RewardFunction] = {}


def register_reward(name: str) -> Callable[[RewardFunction], RewardFunction]:
    """Make a function a built-in reward under a name, which ``reward.functions`` can then use.

    Raises
    ------
    RewardError
        If the name is taken, or has a colon, which marks ``module:function``.
    """

    def register(function: RewardFunction) -> RewardFunction:
        if ":" in name or not name.strip():
            raise RewardError(
                f"{name!r} cannot name a reward", cure="choose a name without a colon"
            )
        if _REWARDS.setdefault(name, function) is not function:
            raise RewardError(f"reward {name!r} is registered twice", cure="choose another name")
        return function

    return register


def registered_rewards() -> Mapping[str, RewardFunction]:
    """Return a read-only view of the built-in rewards by name."""
    return MappingProxyType(_REWARDS)
