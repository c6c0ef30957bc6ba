"""Advantages: how good a completion is beside the others of its group. One pure function a rule,
chosen by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgrpo.errors import SettingsError
from fedgrpo.registry import Registry

Floats = NDArray[np.float64]
AdvantageRule = Callable[..., Floats]
"""A function of float64 rewards, shape (prompts, group), and options; same shape back."""

ADVANTAGES: Registry[AdvantageRule] = Registry("grpo.advantage")
register_advantage = ADVANTAGES.register

STD_FLOOR = 1e-3
"""Least spread that a group is divided by: below it, differences are rounding errors, not signal.
"""


def compute_advantages(name: str, rewards: Floats, group_size: int, **options: Any) -> Floats:
    """Compute the advantage of every completion.

    Parameters
    ----------
    name:
        A registered rule.
    rewards:
        Flat, shape (prompts * group_size,), completions of one prompt side by side.
    group_size:
        Completions a prompt.

    Returns
    -------
    float64 array of the same shape. A group without spread gets exact zeros.

    Raises
    ------
    SettingsError
        If no rule has this name, or the rewards do not fill whole groups.
    """
    rule = ADVANTAGES[name]
    flat = np.asarray(rewards, dtype=np.float64)
    if flat.ndim != 1 or flat.size % group_size:
        raise SettingsError(
            f"rewards of shape {flat.shape} do not fill groups of {group_size}",
            cure="give one reward a completion, completions of one prompt side by side",
        )
    return rule(flat.reshape(-1, group_size), **options).reshape(-1)


def _centred(rewards: Floats) -> Floats:
    """Reward minus group mean, with exact zeros where the group agrees up to rounding."""
    centred: Floats = rewards - rewards.mean(axis=1, keepdims=True)
    scale = 1 + np.abs(rewards).max(axis=1)
    centred[np.ptp(rewards, axis=1) <= 1e-9 * scale] = 0.0
    return centred


@register_advantage("grpo")
def grpo(rewards: Floats) -> Floats:
    """(R - mean) / std of the group, sample standard deviation (arXiv 2402.03300)."""
    spread: Floats = rewards.std(axis=1, ddof=1, keepdims=True)
    return np.divide(_centred(rewards), np.maximum(spread, STD_FLOOR))


@register_advantage("dr_grpo")
def dr_grpo(rewards: Floats) -> Floats:
    """R - mean of the group, not divided (arXiv 2503.20783)."""
    return _centred(rewards)
