"""Measure an adapter on prompts that nobody trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.records import Evaluation, Sample
from fedgrpo.grpo.collection import Collector
from fedgrpo.grpo.rollout.experience import nanmean
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.settings import EvaluationSettings, GRPOSettings

SAMPLES = 8
"""Held-out prompts whose completions are kept at each evaluation."""
MOST_VALUES = 24
"""Values of a column that are reported by themselves."""
GROUPS = 64
"""Groups of completions that are held at once while pass@k is measured."""


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


def by_reward(sampled: Answers, greedy: Answers) -> dict[str, dict[str, float]]:
    """Held-out mean of each reward function by name, as far as it applies to any completion."""
    ways = {"sampled": sampled.by_function(), "greedy": greedy.by_function()}
    names = dict.fromkeys(name for means in ways.values() for name in means)
    found = {
        name: {way: means[name] for way, means in ways.items() if isfinite(means[name])}
        for name in names
    }
    return {name: means for name, means in found.items() if means}


def pass_at(passed: NDArray[np.int64], drawn: int, k: int) -> float:
    """Chance that one of k completions passes, without bias (Chen et al., arXiv 2107.03374).

    Parameters
    ----------
    passed:
        How many of each prompt's completions did, shape (P,).
    drawn:
        Completions of each prompt, at least k.
    k:
        Completions that somebody asks for.
    """
    tries = np.arange(drawn - k + 1, drawn + 1)
    # Of the prompts with too few failures to draw k of them a factor is 0 or below.
    factors = np.clip(1 - passed[:, None] / tries, 0, None)
    return float(np.mean(1 - factors.prod(axis=1)))


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

    def evaluate(self, settings: EvaluationSettings, *, at_end: bool = False) -> Evaluation:
        """Everything that is told of the adapter as it stands; at either end of a run also what
        takes long.
        """
        sampled, greedy = self.sampled(), self.greedy()
        return Evaluation(
            sampled.reward,
            greedy.reward,
            self.drift(sampled),
            by_reward(sampled, greedy),
            self.samples(sampled),
            self.by(settings.by, {"sampled": sampled, "greedy": greedy}),
            self.pass_at(settings.pass_at if at_end else ()),
        )

    def sampled(self) -> Answers:
        """One completion a prompt, at the training temperature."""
        return self._answers(self.policy.settings.temperature)

    def greedy(self) -> Answers:
        """The most likely completion of each prompt."""
        return self._answers(0.0)

    def drift(self, answers: Answers) -> float:
        """Mean k3 divergence in nats a token from the reference, on completions just sampled."""
        return self.policy.divergence(answers.rollout, range(len(answers.rollout.tokens)))

    def samples(self, answers: Answers) -> list[Sample]:
        """The first few answers as text."""
        texts = self.policy.decode(answers.rollout)[:SAMPLES]
        total, by_function = answers.rewards.total, answers.rewards.per_function
        return [
            Sample(
                prompt=row.for_model(),
                completion=text,
                reward=float(total[i]),
                rewards={
                    name: None if isnan(v[i]) else float(v[i]) for name, v in by_function.items()
                },
                extra={name: str(v[i]) for name, v in answers.rewards.notes.extras.items()},
            )
            for i, (row, text) in enumerate(zip(self.collector.rows, texts, strict=False))
        ]

    def by(self, column: str, answers: Mapping[str, Answers]) -> dict[str, dict[str, float]]:
        """Mean reward of the prompts with each value of a column, for each kind of answers by its
        name; empty where there is no such column, or it has too many values to be read.
        """
        values = [row.columns.get(column) for row in self.collector.rows]
        places: dict[str, list[int]] = {}
        for place, value in enumerate(values):
            if value is not None:
                places.setdefault(str(value), []).append(place)
        if len(places) > MOST_VALUES:
            return {}
        return {
            value: {name: float(a.rewards.total[own].mean()) for name, a in answers.items()}
            for value, own in sorted(places.items())
        }

    def pass_at(self, budgets: Sequence[int]) -> dict[str, float]:
        """Share of the prompts of which one of k completions, sampled at the training temperature,
        is worth ``grpo.passing_reward``: by k as text, for each of these k. See :func:`pass_at`.
        """
        if not budgets:
            return {}
        passed, drawn = self.solved(max(budgets))
        return {str(k): pass_at(passed, drawn, k) for k in sorted(set(budgets))}

    def solved(self, least: int) -> tuple[NDArray[np.int64], int]:
        """How many of each prompt's completions are worth ``grpo.passing_reward``, shape (P,), and
        how many were sampled: at least so many, in groups as large as those of training, so that it
        takes no more memory.
        """
        self.policy.generator.manual_seed(self.seed)
        size, prompts = self.policy.settings.group_size, len(self.collector.rows)
        each = -(-least // size)
        order = np.repeat(np.arange(prompts), each)
        passed = np.concatenate(
            [self._passed(order[at : at + GROUPS]) for at in range(0, len(order), GROUPS)]
        )
        return passed.reshape(prompts, each).sum(axis=1), each * size

    def _passed(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many completions pass in a group of each of these prompts; unjudged ones do not."""
        rollout = self.policy.rollout(
            [self.collector.encoded[i] for i in prompts], self.policy.sampling_plan()
        )
        rewards = self.collector.reward_of(rollout, [self.collector.rows[i] for i in prompts])
        passes = rewards.counted() & (rewards.total >= self.policy.settings.passing_reward)
        passed: NDArray[np.int64] = passes.reshape(len(prompts), -1).sum(axis=1)
        return passed

    def _answers(self, temperature: float) -> Answers:
        self.policy.generator.manual_seed(self.seed)
        plan = self.policy.sampling_plan(group_size=1, temperature=temperature)
        rollout = self.policy.rollout(self.collector.encoded, plan)
        return Answers(rollout, self.collector.reward_of(rollout, self.collector.rows))
