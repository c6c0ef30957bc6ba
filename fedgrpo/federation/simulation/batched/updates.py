"""Releases of all clients without prompt-level privacy: each is the ordinary client, whose first
completions of the round were sampled together with everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedgrpo.attacks.poison import Poison
from fedgrpo.data.prompts import PromptRow
from fedgrpo.federation.node.clients.client import LocalClient
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.simulation.batched.completions import Answer, Encoded, sampled_together
from fedgrpo.federation.simulation.batched.poisoning import forced
from fedgrpo.grpo.collection import Collector
from fedgrpo.grpo.methods.guidance.base import PlainPrompt
from fedgrpo.grpo.rollout.policy import Policy, Sampled
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan


class HandedOut(PlainPrompt):
    """Hands completions out that were sampled before, once; afterwards it samples itself."""

    def __init__(self, collector: Collector, poison: Poison | None) -> None:
        super().__init__(collector)
        self.ready: Rollout | None = None
        self.poison = poison

    def rollout(self, rows: Sequence[PromptRow], encoded: Sequence[Encoded]) -> Rollout:
        """See :class:`fedgrpo.grpo.methods.guidance.base.Guide`."""
        ready, self.ready = self.ready, None
        if ready is None or ready.prompts != tuple(encoded):
            ready = super().rollout(rows, encoded)
        else:
            self.policy.sampled += Sampled(len(ready.mask), int(ready.mask.sum()))
        return forced(self.policy, ready, rows, self.poison) if self.poison else ready


@dataclass(frozen=True, eq=False)
class Learner:
    """An ordinary client whose completions are handed out to it."""

    client: LocalClient
    guide: HandedOut | None

    @classmethod
    def of(cls, client: LocalClient, poison: Poison | None) -> Learner:
        """Take the place of the client's own sampling."""
        if client.trainer is None:
            return cls(client, None)
        guide = HandedOut(client.trainer.collector, poison)
        client.trainer.collector.guide = guide
        return cls(client, guide)

    def first_prompts(self, round: int, key: bytes) -> list[Encoded]:
        """The prompts that its first step of the round takes."""
        trainer = self.client.trainer
        if trainer is None:
            return []
        self.client.start_round(trainer, round, key)
        return [trainer.collector.encoded[i] for i in trainer.next_prompts()]


def released(
    policy: Policy,
    learners: Mapping[int, Learner],
    keys: Mapping[int, bytes],
    adapter: AdapterState,
    plan: ReleasePlan,
    round: int,
) -> dict[int, Answer]:
    """What each client releases, by its number.

    Parameters
    ----------
    policy:
        Holds the round's adapter; its generator is seeded for the round.
    learners, keys:
        Those who take part, by number.
    adapter, plan, round:
        Of the round.
    """
    chosen = [learner.first_prompts(round, keys[number]) for number, learner in learners.items()]
    rollouts = sampled_together(policy, chosen)
    made = {}
    for (number, learner), rollout in zip(learners.items(), rollouts, strict=True):
        if learner.guide:
            learner.guide.ready = rollout
        watch = Watch()
        release = learner.client.contribute(adapter, plan, round, keys[number], watch)
        made[number] = Answer(release, watch.mishaps)
    return made
