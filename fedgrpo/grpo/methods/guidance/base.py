"""What every guide has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.parts import Registry
from fedgrpo.grpo.rollout.experience import Experience
from fedgrpo.grpo.rollout.sampling import Rollout

if TYPE_CHECKING:
    from fedgrpo.grpo.collection import Collector


class Guide(Protocol):
    """Samples the completions of some prompts, and may add to them once they are judged.

    Made once for a collector's prompts, and told when a round begins.
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


GUIDES: Registry[Callable[[Collector], Guide]] = Registry("grpo.guidance")
register_guide = GUIDES.register


@register_guide("none")
class PlainPrompt:
    """Completions of the plain prompt and no others; what other guides build on."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.policy = collector.policy
        self.settings = collector.settings

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
