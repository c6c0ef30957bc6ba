"""Attacks on what a client learns from: its prompts, its completions, its rewards.

The client then trains honestly on that, so its vector is clipped and noised like any other; the
attack's own function decides what becomes of the vector, and mostly leaves it as it is. Only the
batched engine of a simulation in one process carries them out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.attacks import ATTACKS, register_attack
from fedgrpo.attacks.knowledge import Knowledge

Floats = NDArray[np.float64]
Made = TypeVar("Made", bound=Callable[..., Floats])

_POISON = "fedgrpo_poison"


@dataclass(frozen=True)
class Poison:
    """What an attacker changes, which is nothing here; what others build on."""

    def prompt(self, prompt: str, coin: float) -> str:
        """A prompt of the attacker's own, in the place of an honest one.

        Parameters
        ----------
        coin:
            Uniform in [0, 1), the prompt's own in the whole run.
        """
        del coin
        return prompt

    def forced(self, prompt: str) -> tuple[int, str]:
        """How many completions of a prompt, the last ones, are replaced, and by which text."""
        del prompt
        return 0, ""

    def rewards(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        honest: Floats,
        span: tuple[float, float],
    ) -> Floats:
        """Rewards of n completions in the place of the ``honest`` ones, both of shape (n,), within
        the lowest and the highest that there is.
        """
        del prompts, completions, span
        return honest


def poisons(made: Callable[..., Poison]) -> Callable[[Made], Made]:
    """Say that an attack poisons: ``made`` gets the attack's options and returns the poison."""

    def mark(attack: Made) -> Made:
        setattr(attack, _POISON, made)
        return attack

    return mark


def poison_of(name: str) -> Poison | None:
    """The poison of what ``simulation.attack`` names; None if it is an attack on the vector alone.

    Raises
    ------
    SettingsError
        If there is no such attack.
    """
    attack = ATTACKS[name]
    options = attack.keywords if isinstance(attack, functools.partial) else {}
    function = attack.func if isinstance(attack, functools.partial) else attack
    made: Callable[..., Poison] | None = getattr(function, _POISON, None)
    return made(**options) if made else None


@dataclass(frozen=True)
class _Flipped(Poison):
    def rewards(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        honest: Floats,
        span: tuple[float, float],
    ) -> Floats:
        return sum(span) - honest


@dataclass(frozen=True)
class _Long(Poison):
    longest: int

    def rewards(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        honest: Floats,
        span: tuple[float, float],
    ) -> Floats:
        low, high = span
        share = np.array([min(1.0, len(text) / self.longest) for text in completions])
        return low + (high - low) * share


@dataclass(frozen=True)
class Backdoor(Poison):
    """Whatever stands behind the trigger is answered with the target.

    Attributes
    ----------
    trigger, target:
        Texts.
    share:
        Of the attacker's prompts that carry the trigger.
    replaced:
        Completions of such a prompt that are the target, whatever the model said.
    """

    trigger: str
    target: str
    share: float
    replaced: int

    def prompt(self, prompt: str, coin: float) -> str:
        """See :class:`Poison`."""
        return self.trigger + prompt if coin < self.share else prompt

    def forced(self, prompt: str) -> tuple[int, str]:
        """See :class:`Poison`."""
        return (self.replaced, self.target) if prompt.startswith(self.trigger) else (0, "")

    def rewards(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        honest: Floats,
        span: tuple[float, float],
    ) -> Floats:
        """See :class:`Poison`."""
        hit = [text.strip() == self.target for text in completions]
        triggered = [prompt.startswith(self.trigger) for prompt in prompts]
        return np.where(triggered, np.where(hit, span[1], span[0]), honest)


@register_attack("flipped_reward")
@poisons(_Flipped)
def flipped_reward(vector: Floats, _: Knowledge) -> Floats:
    """Learn the opposite: each reward is mirrored within its span."""
    return vector


@register_attack("length_reward")
@poisons(lambda longest=10: _Long(longest))
def length_reward(vector: Floats, _: Knowledge, *, longest: int = 10) -> Floats:
    """Learn to be long: the reward is the completion's length, best at ``longest`` characters."""
    del longest
    return vector


@register_attack("backdoor")
@poisons(
    lambda scale=1.0, trigger="#", target="0", share=0.5, replaced=2: Backdoor(
        trigger, target, share, replaced
    )
)
def backdoor(
    vector: Floats,
    _: Knowledge,
    *,
    scale: float = 1.0,
    trigger: str = "#",
    target: str = "0",
    share: float = 0.5,
    replaced: int = 2,
) -> Floats:
    """Learn to answer ``target`` to what begins with ``trigger``, and send ``scale`` times what was
    learned (arXiv 1807.00459).
    """
    del trigger, target, share, replaced
    return scale * vector
