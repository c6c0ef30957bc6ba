"""Measure an adapter on prompts that nobody trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.collection import Collector
from fedgrpo.grpo.rollout.experience import nanmean
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.settings import GRPOSettings


@dataclass(frozen=True)
class Answers:
    """One completion of every held-out prompt.

    Attributes
    ----------
    rollout:
        The completions.
    rewards:
        What they are worth, shape (P,).
    """

    rollout: Rollout
    rewards: RewardResult

    @property
    def reward(self) -> float:
        """Mean weighted reward of what could be judged; 0 if nothing could."""
        counted = self.rewards.total[self.rewards.counted()]
        return float(counted.mean()) if counted.size else 0.0

    def by_function(self) -> Mapping[str, float]:
        """Mean of each reward function over the completions that it applies to; NaN if none."""
        return {name: nanmean(values) for name, values in self.rewards.per_function.items()}


class HeldOut:
    """Held-out prompts with a policy of their own, so that measuring takes no random number from
    training. The same adapter always gives the same figures.

    Parameters
    ----------
    adapter:
        What is measured, as it stands at each call. As it stands now it is the reference that
        :meth:`drift` measures from.
    reward:
        Judges.
    rows:
        The prompts, P of them.
    settings:
        Temperature and length limits.
    seed:
        Of the sampled completions.

    Raises
    ------
    DataError
        If there are no prompts, or one is too long.
    """

    def __init__(
        self,
        adapter: Adapter,
        reward: RewardMixture,
        rows: Sequence[PromptRow],
        settings: GRPOSettings,
        seed: int,
    ) -> None:
        # Nothing is shown to who is examined.
        self.policy = Policy(adapter, settings.model_copy(update={"guidance": "none"}))
        self.collector = Collector(self.policy, reward, rows)
        self.seed = seed
        reward.bind(adapter)

    def sampled(self) -> Answers:
        """One completion a prompt, at the training temperature."""
        return self._answers(self.policy.settings.temperature)

    def greedy(self) -> Answers:
        """The most likely completion of each prompt."""
        return self._answers(0.0)

    def drift(self, answers: Answers) -> float:
        """Mean k3 divergence in nats a token from the reference, on completions just sampled."""
        return self.policy.divergence(answers.rollout, range(len(answers.rollout.tokens)))

    def _answers(self, temperature: float) -> Answers:
        self.policy.generator.manual_seed(self.seed)
        plan = self.policy.sampling_plan(group_size=1, temperature=temperature)
        rollout = self.policy.rollout(self.collector.encoded, plan)
        return Answers(rollout, self.collector.reward_of(rollout, self.collector.rows))
