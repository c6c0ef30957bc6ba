"""The registry of advantages, what a rule sees, and the arithmetic that several rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import Registry

Floats = NDArray[np.float64]
Rule = TypeVar("Rule", bound=Callable[..., Floats])

STD_FLOOR = 1e-3
"""Least spread that anything is divided by: below it, differences are rounding errors, not signal.
"""
ROUNDING = 1e-9
"""Differences up to this share of the values' size are rounding errors."""


@dataclass(frozen=True)
class Outcomes:
    """What a rule sees of P prompts with G completions each, all float64."""

    rewards: Floats
    """Weighted total, shape (P, G)."""
    lengths: Floats
    """Tokens a completion, shape (P, G)."""
    objectives: Floats
    """Each of K reward functions by itself, shape (K, P, G); NaN where one does not apply."""
    weights: Floats
    """Weight of each objective, shape (K,)."""


@dataclass(frozen=True)
class AdvantageRule:
    """An advantage, with the defaults of one that declares nothing."""

    function: Callable[..., Floats]
    """From :class:`Outcomes` and the rule's own options to float64 advantages, shape (P, G)."""
    batch_wide: bool = True
    """Whether another prompt's completions can change the advantages of this one's."""


ADVANTAGES: Registry[AdvantageRule] = Registry("grpo.advantage", kind=AdvantageRule)


def declare_advantage(*, batch_wide: bool) -> Callable[[Rule], Rule]:
    """Say of the decorated rule what settings that name it with its file must know.

    Parameters
    ----------
    batch_wide:
        Say True if the rule looks beyond the completion's own prompt; prompt-level privacy refuses
        it then, and whatever declares nothing.
    """

    def add(function: Rule) -> Rule:
        ADVANTAGES.declare(function, AdvantageRule(function, batch_wide))
        return function

    return add


def register_advantage(name: str, *, batch_wide: bool) -> Callable[[Rule], Rule]:
    """Declare the decorated rule (:func:`declare_advantage`), and add it under a name; raises
    SettingsError if the name is taken.
    """

    def add(function: Rule) -> Rule:
        ADVANTAGES.register(name)(AdvantageRule(function, batch_wide))
        return declare_advantage(batch_wide=batch_wide)(function)

    return add


def compute_advantages(
    name: str,
    rewards: ArrayLike,
    group_size: int,
    *,
    lengths: ArrayLike | None = None,
    objectives: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    **options: Any,
) -> Floats:
    """Compute the advantage of every completion.

    Parameters
    ----------
    name:
        A registered rule; docs/algorithms.md lists them.
    rewards:
        Flat, shape (prompts * group_size,), completions of one prompt side by side.
    group_size:
        Completions a prompt.
    lengths:
        Tokens a completion, same shape as the rewards; by default equal. Rules that normalise over
        the tokens of a batch weigh completions by it.
    objectives:
        Several rewards, shape (k, prompts * group_size), NaN where one does not apply; by default
        the rewards are the only one. Rules for several objectives combine these and do not look at
        ``rewards``.
    weights:
        One for each objective, by default 1.
    options:
        The rule's own.

    Returns
    -------
    float64 array of the shape of ``rewards``.

    Raises
    ------
    SettingsError
        If no rule has this name, the arrays do not fill whole groups, a reward is not finite, a
        group of one is to be compared within itself, or the rule's result has another shape.
    """
    rule = ADVANTAGES[name]
    flat = np.asarray(rewards, dtype=np.float64)
    if flat.ndim != 1 or group_size < 1 or flat.size % group_size:
        raise SettingsError(
            f"rewards of shape {flat.shape} do not fill groups of {group_size}",
            cure="give one reward a completion, completions of one prompt side by side",
        )
    if not np.isfinite(flat).all():
        raise SettingsError(
            f"reward {np.isfinite(flat).argmin() + 1} of {flat.size} is not finite",
            cure="let every completion have a number; rewards that do not apply go to objectives",
        )
    if group_size == 1 and not rule.batch_wide:
        raise SettingsError(
            f"advantage {name!r} compares within a group, and a group of 1 has nobody to compare",
            cure="set grpo.group_size >= 2",
        )
    if not flat.size:
        return flat
    several = np.atleast_2d(flat if objectives is None else objectives)
    outcomes = Outcomes(
        flat.reshape(-1, group_size),
        _shaped("lengths", lengths, flat.shape).reshape(-1, group_size),
        _shaped("objectives", several, (len(several), flat.size)).reshape(
            len(several), -1, group_size
        ),
        _shaped("weights", weights, (len(several),)),
    )
    advantages = rule.function(outcomes, **options)
    if advantages.shape != outcomes.rewards.shape:
        raise SettingsError(
            f"advantage {name!r} returned shape {advantages.shape}, not {outcomes.rewards.shape}",
            cure="return one number a completion",
        )
    return advantages.reshape(-1)


def _shaped(what: str, values: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """Values in float64, ones if there are none, of exactly this shape."""
    array = np.ones(shape) if values is None else np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise SettingsError(
            f"{what} of shape {array.shape} do not fit, {shape} is expected",
            cure="give one value a completion (and objective)",
        )
    return array


def rounding(values: Floats, axis: int | None = None) -> Floats:
    """Size below which differences between ``values`` mean nothing, along an axis or over all."""
    return np.asarray(ROUNDING * (1 + np.abs(values).max(axis=axis, keepdims=True)))


def centred(rewards: Floats) -> Floats:
    """Reward minus group mean, with exact zeros where the group agrees up to rounding."""
    agrees = np.ptp(rewards, axis=1, keepdims=True) <= rounding(rewards, axis=1)
    return np.where(agrees, 0.0, rewards - rewards.mean(axis=1, keepdims=True))


def whiten(values: Floats, lengths: Floats) -> Floats:
    """Standard score over all tokens: values weighed by lengths, n - 1 in the variance, a floor.

    Zeros stay exact zeros where the mean is zero up to rounding, so that groups without signal can
    still be skipped.
    """
    tolerance = float(rounding(values).item())
    if np.ptp(values) <= tolerance:
        return np.zeros_like(values)
    count = lengths.sum()
    mean = float((lengths * values).sum() / count)
    from_mean = values - (0.0 if abs(mean) <= tolerance else mean)
    variance = float((lengths * from_mean**2).sum() / max(count - 1, 1))
    return np.divide(from_mean, max(variance**0.5, STD_FLOOR))
