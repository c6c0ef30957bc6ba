"""Prompts, who samples for them and who judges what comes: what guides and credit build on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedgrpo.data.failing import check_failing, failing_words
from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import DataError, RewardError
from fedgrpo.grpo.learning.advantages import compute_advantages
from fedgrpo.grpo.learning.health import TrainingWarning
from fedgrpo.grpo.rollout.experience import judge
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids
from fedgrpo.grpo.rollout.usable import usable_rows
from fedgrpo.rewards.calling.context import TrainerState
from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.verifiable.overlong import soft_overlong
from fedgrpo.settings import DataSettings, GRPOSettings

Floats = NDArray[np.float64]

MOST_IN_A_ROW = 8
"""Prompts one after another that cannot be judged: then it is the reward that is to be mended."""


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
    max_failing:
        Largest share of them that may be left out because the model cannot take them.

    Attributes
    ----------
    rows, encoded:
        Those that can be used, and their token ids.
    left_out:
        Why others cannot.
    progress:
        What rewards are told of the training.

    Raises
    ------
    DataError
        If there are no prompts, or too many of them cannot be used.
    """

    def __init__(
        self,
        policy: Policy,
        reward: RewardMixture,
        rows: Sequence[PromptRow],
        max_failing: float = DataSettings().max_failing,
    ) -> None:
        if not rows:
            raise DataError("there are no prompts", cure="give at least one row with a prompt")
        self.policy = policy
        self.settings = policy.settings
        self.reward = reward
        base = policy.adapter.base
        found = usable_rows(base.tokenizer, base.chat, rows, self.settings.max_prompt_length)
        check_failing(found.failures, len(rows), max_failing)
        self.rows, self.encoded, self.left_out = found.rows, found.encoded, found.failures
        self.progress = TrainerState()
        self._named: set[tuple[int, str]] = set()
        self._failed_in_a_row, self._judged_any = 0, False
        _warn(failing_words(self.left_out))

    def reward_of(self, rollout: Rollout, rows: Sequence[PromptRow]) -> RewardResult:
        """Judge every completion of a rollout over these rows. A row that cannot be judged counts
        nothing, and is named once.

        Raises
        ------
        RewardError
            If no row can be judged, at the start or many times in a row.
        """
        ids, texts = completion_ids(rollout), self.policy.decode(rollout)
        found = judge(self.reward, rows, texts, ids, rollout.group_size, self.progress)
        self._note(found, rows)
        return found

    def _note(self, found: RewardResult, rows: Sequence[PromptRow]) -> None:
        for lacking in found.unmeasured:
            if (key := (0, lacking.problem)) not in self._named:
                self._named.add(key)
                words = f"{lacking.problem}. Cure: {lacking.cure}."
                _warn([f"A metric told nothing of a prompt: {words}"])
        self._judged_any |= len(found.failures) < len(rows)
        if not self._judged_any and len(rows) > 1:
            raise found.failures[0]  # The very first prompts, all of them.
        for number in range(len(rows)):
            error = found.failures.get(number)
            self._failed_in_a_row = self._failed_in_a_row + 1 if error else 0
            if error and self._failed_in_a_row >= min(MOST_IN_A_ROW, len(self.rows)):
                raise error
            if error and (key := (rows[number].number, error.problem)) not in self._named:
                self._named.add(key)
                _warn([_unjudged(rows[number], error)])

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
    """Advantages of every completion, ``prompts_each`` prompts at a time; float32. Groups that no
    reward applies to have none, and are nothing to the others.
    """
    lengths, totals = rollout.lengths().double().numpy(), shaped(settings, rollout, rewards)
    objectives, counted = rewards.objectives().T, _counted_groups(rewards, rollout.group_size)
    worth = np.zeros(len(totals))
    at_once = prompts_each * rollout.group_size
    for start in range(0, len(totals), at_once):
        rows = start + counted[start : start + at_once].nonzero()[0]
        if not len(rows):
            continue
        worth[rows] = compute_advantages(
            settings.advantage,
            totals[rows],
            rollout.group_size,
            lengths=lengths[rows],
            objectives=objectives[:, rows],
            weights=reward.weights,
        )
    return torch.from_numpy(worth).float()


def _counted_groups(rewards: RewardResult, group_size: int) -> NDArray[np.bool_]:
    """Completions of groups to which a reward applies, shape (N,)."""
    groups = rewards.counted().reshape(-1, group_size).any(axis=1)
    return np.repeat(groups, group_size)


def _unjudged(row: PromptRow, error: RewardError) -> str:
    which = f"Row {row.number} of the prompts" if row.number else "A prompt"
    return f"{which} counts nothing: {error.problem}. Cure: {error.cure}."


def _warn(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, TrainingWarning, stacklevel=4)
