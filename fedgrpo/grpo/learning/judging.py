"""Prompts, who samples for them and who judges what comes: what guides and credit build on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError
from fedgrpo.grpo.learning.advantages import compute_advantages
from fedgrpo.grpo.rollout.experience import encode_prompts, judge
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.verifiable.overlong import soft_overlong
from fedgrpo.settings import GRPOSettings

Floats = NDArray[np.float64]


class Judging:
    """Prompts with a policy that samples and a reward that judges.

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
        If there are no prompts, or one is too long.
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
