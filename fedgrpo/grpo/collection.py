"""Which prompts come next, and what comes of them: sampled, judged and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError
from fedgrpo.grpo.learning.advantages import compute_advantages
from fedgrpo.grpo.methods.guidance import GUIDES
from fedgrpo.grpo.rollout.experience import (
    Experience,
    encode_prompts,
    judge,
    replace_groups,
)
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.verifiable.overlong import soft_overlong
from fedgrpo.settings import GRPOSettings

Floats = NDArray[np.float64]


class Collector:
    """Turns prompts into judged completions with advantages.

    Parameters
    ----------
    policy:
        Samples.
    reward:
        Judges.
    rows:
        The prompts.

    Raises
    ------
    DataError
        If there are no prompts, one is too long, or one lacks what the guidance needs.
    SettingsError
        If the guidance's template has other fields than it must.
    """

    def __init__(self, policy: Policy, reward: RewardMixture, rows: Sequence[PromptRow]) -> None:
        if not rows:
            raise DataError("there are no prompts", cure="give at least one row with a prompt")
        self.policy = policy
        self.settings = policy.settings
        self.reward = reward
        self.rows = list(rows)
        tokenizer = policy.adapter.base.tokenizer
        self.encoded = encode_prompts(tokenizer, self.rows, self.settings.max_prompt_length)
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
        experience = Experience(rollout, rewards, self.advantages(rollout, rewards, len(rows)))
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

    def reward_of(self, rollout: Rollout, rows: Sequence[PromptRow]) -> RewardResult:
        """Judge every completion of a rollout over these rows.

        Raises
        ------
        RewardError
            If a reward function fails.
        """
        ids, texts = completion_ids(rollout), self.policy.decode(rollout)
        return judge(self.reward, rows, texts, ids, rollout.group_size)

    def advantages(self, rollout: Rollout, rewards: RewardResult, prompts_each: int) -> Tensor:
        """Advantages of every completion, ``prompts_each`` prompts at a time; float32."""
        return advantages(self.settings, self.reward, rollout, rewards, prompts_each)


def shaped(settings: GRPOSettings, rollout: Rollout, rewards: RewardResult) -> Floats:
    """Weighted rewards less the soft punishment of what runs long, shape (N,)."""
    limit, share = settings.max_completion_length, settings.overlong_share
    if not share:
        return rewards.total
    lengths = rollout.lengths().double().numpy()
    return rewards.total + soft_overlong(lengths, limit, share * limit)


def advantages(
    settings: GRPOSettings,
    reward: RewardMixture,
    rollout: Rollout,
    rewards: RewardResult,
    prompts_each: int,
) -> Tensor:
    """Advantages of every completion, ``prompts_each`` prompts at a time; float32."""
    lengths, totals = rollout.lengths().double().numpy(), shaped(settings, rollout, rewards)
    objectives = rewards.objectives().T
    at_once = prompts_each * rollout.group_size
    parts = [
        compute_advantages(
            settings.advantage,
            totals[start : start + at_once],
            rollout.group_size,
            lengths=lengths[start : start + at_once],
            objectives=objectives[:, start : start + at_once],
            weights=reward.weights,
        )
        for start in range(0, len(totals), at_once)
    ]
    return torch.from_numpy(np.concatenate(parts)).float()
