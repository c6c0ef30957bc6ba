"""What every guide has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.parts import Registry
from fedgrpo.grpo.learning.judging import Judging
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.sampling import Rollout


class Guide(Protocol):
    """Samples the completions of some prompts, and may add to them once they are judged.

    Made once for the prompts of a :class:`~fedgrpo.grpo.learning.judging.Judging`; told when rounds
    begin.
    """

    def start_round(self) -> None:
        """Forget how far the round before had come."""

    def rollout(self, rows: Sequence[PromptRow], encoded: Sequence[tuple[int, ...]]) -> Rollout:
        """Sample the groups of these prompts, given as rows and as token ids."""

    def join(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Add to judged completions, if there is anything to add."""

    def state_dict(self) -> dict[str, Any]:
        """How far the guide has come, as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


GUIDES: Registry[Callable[[Judging], Guide]] = Registry("grpo.guidance")
register_guide = GUIDES.register


@register_guide("none")
class PlainPrompt:
    """Completions of the plain prompt and no others; what other guides build on."""

    def __init__(self, judging: Judging) -> None:
        self.judging = judging
        self.policy = judging.policy
        self.settings = judging.settings

    def start_round(self) -> None:
        """Nothing to forget."""

    def rollout(self, rows: Sequence[PromptRow], encoded: Sequence[tuple[int, ...]]) -> Rollout:
        """Sample by the training's plan."""
        return self.policy.rollout(encoded, self.policy.sampling_plan())

    def join(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Leave everything as it is."""
        return experience

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""
