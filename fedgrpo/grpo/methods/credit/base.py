"""What every way of assigning credit has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.parts import Registry
from fedgrpo.grpo.learning.judging import Judging
from fedgrpo.grpo.rollout.experience import Experience


class CreditAssigner(Protocol):
    """Gives each token of a completion its own advantage.

    An assigner may learn while it assigns (PPO's value head does); what it has learnt is part of a
    trainer's state.
    """

    def assign(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Return the completions with advantages of shape (N, T), zero where there is no token, and
        with figures of how they came about.

        Parameters
        ----------
        experience:
            N judged completions of P prompts, fresh from the policy.
        rows:
            The P prompts.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that has been learnt, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


CREDITS: Registry[Callable[[Judging], CreditAssigner]] = Registry("grpo.credit")
register_credit = CREDITS.register


@register_credit("group")
class GroupCredit:
    """Every token has its completion's advantage, as the group-relative methods have it."""

    def __init__(self, judging: Judging) -> None:
        """There is nothing to learn."""

    def assign(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Leave everything as it is."""
        return experience

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""
