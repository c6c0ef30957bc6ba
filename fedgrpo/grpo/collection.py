"""Which prompts come next, and what comes of them: sampled, judged and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.learning.judging import Judging
from fedgrpo.grpo.methods.guidance import GUIDES
from fedgrpo.grpo.rollout.experience import Experience, replace_groups
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import DataSettings


class Collector(Judging):
    """Turns prompts into judged completions with advantages.

    Raises
    ------
    DataError
        If a prompt lacks what the guidance needs.
    SettingsError
        If the guidance's template has other fields than it must.
    """

    def __init__(
        self,
        policy: Policy,
        reward: RewardMixture,
        rows: Sequence[PromptRow],
        max_failing: float = DataSettings().max_failing,
    ) -> None:
        super().__init__(policy, reward, rows, max_failing)
        self.guide = GUIDES[self.settings.guidance](self)
        self.rng = np.random.default_rng()
        self.order: list[int] = []

    def start_round(self, seed: int | None) -> None:
        """Begin a fresh shuffle of the prompts with the adapter as it stands."""
        self.rng = np.random.default_rng(seed)
        self.policy.start_round(int(self.rng.integers(2**63)))
        self.order = []
        self.guide.start_round()
        self.reward.bind(self.policy.adapter)

    def next_prompts(self, count: int | None = None) -> list[int]:
        """Numbers of the next prompts, by default of a step.

        Each is used once before any returns: what a shuffle leaves over opens the next step.
        """
        wanted = min(count or self.settings.prompts_per_step, len(self.rows))
        if len(self.order) < wanted:
            left = set(self.order)
            # What is left goes to the end of the new shuffle too, so no step has a prompt twice.
            fresh = self.rng.permutation(len(self.rows)).tolist()
            self.order += [i for i in fresh if i not in left] + [i for i in fresh if i in left]
        chosen, self.order = self.order[:wanted], self.order[wanted:]
        return chosen

    def collect(self, chosen: Sequence[int]) -> Experience:
        """Sample and judge the prompts with these numbers."""
        rows = [self.rows[i] for i in chosen]
        encoded = [self.encoded[i] for i in chosen]
        rollout = self.guide.rollout(rows, encoded)
        rewards = self.reward_of(rollout, rows)
        worth = self.advantages(rollout, rewards, len(rows))
        logged = {f"log/{name}": mean for name, mean in rewards.notes.means().items()}
        experience = Experience(rollout, rewards, worth, logged)
        return self.guide.join(experience, rows)

    def refilled(self, experience: Experience) -> Experience:
        """Replace groups without signal by fresh prompts, a bounded number of times (DAPO's dynamic
        sampling, arXiv 2503.14476).
        """
        for _ in range(self.settings.max_resamples):
            silent = experience.silent_groups()
            if not silent:
                break
            fresh = self.collect(self.next_prompts(len(silent)))
            rollout, rewards = replace_groups(experience, silent, fresh)
            advantages = self.advantages(rollout, rewards, experience.prompts)
            experience = replace(
                experience, rollout=rollout, rewards=rewards, advantages=advantages
            )
        return experience
