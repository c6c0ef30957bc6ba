"""VinePPO: the value of a step's start is the mean reward of fresh rollouts from there (arXiv
2410.01679).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.learning.judging import Judging, shaped
from fedgrpo.grpo.methods.credit.base import register_credit
from fedgrpo.grpo.rollout.experience import Experience, judge
from fedgrpo.grpo.rollout.sampling import Rollout, completion_ids

Prefix = tuple[int, tuple[int, ...]]
"""Position of a prompt, and the completion's tokens so far."""


@dataclass(frozen=True)
class Steps:
    """The steps of one completion.

    Attributes
    ----------
    starts:
        First token of each step; the first is 0.
    length:
        Tokens of the completion.
    """

    starts: tuple[int, ...]
    length: int

    def spans(self) -> list[slice]:
        """Tokens of each step."""
        ends = [*self.starts[1:], self.length]
        return [slice(a, b) for a, b in zip(self.starts, ends, strict=True)]


def split_steps(pieces: Sequence[str], longest: int) -> Steps:
    """Split a completion, given as the text of each token, behind every line end and, where lines
    are longer, after ``longest`` tokens.

    A step never begins with the end token alone: nothing is left to decide there.
    """
    starts, size = [0], 0
    for index, piece in enumerate(pieces[:-1]):
        size += 1
        full = "\n" in piece or size == longest
        if full and index + 1 < len(pieces) - 1:
            starts.append(index + 1)
            size = 0
    return Steps(tuple(starts), len(pieces))


def step_advantages(steps: Steps, values: Sequence[float], reward: float) -> list[float]:
    """A_k = V(s_{k+1}) - V(s_k), where the outcome's reward stands for the value of the end; they
    telescope to reward - V(s_0).

    Parameters
    ----------
    values:
        Value of each step's start.
    """
    ahead = [*values[1:], reward]
    return [after - before for before, after in zip(values, ahead, strict=True)]


@register_credit("vine")
class VineCredit:
    """Monte-Carlo values at step boundaries, ``grpo.vine_rollouts`` each. There is no critic."""

    def __init__(self, judging: Judging) -> None:
        self.judging = judging
        self.settings = judging.settings

    def assign(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Every token of a step has the step's advantage; shape (N, T)."""
        rollout = experience.rollout
        totals = shaped(self.judging.settings, rollout, experience.rewards)
        ids = completion_ids(rollout)
        steps = [split_steps(self._pieces(row), self.settings.vine_step) for row in ids]
        prefixes = [
            [(number // rollout.group_size, tuple(row[:start])) for start in split.starts]
            for number, (row, split) in enumerate(zip(ids, steps, strict=True))
        ]
        # Many completions of a prompt begin alike, and all of them with nothing.
        wanted = sorted({prefix for several in prefixes for prefix in several})
        values = self._values(rollout, rows, wanted)
        advantages = torch.zeros(rollout.mask.shape)
        for number, split in enumerate(steps):
            known = [values[prefix] for prefix in prefixes[number]]
            of_steps = step_advantages(split, known, float(totals[number]))
            for span, advantage in zip(split.spans(), of_steps, strict=True):
                advantages[number, span] = advantage
        figures = {
            "steps": float(np.mean([len(split.starts) for split in steps])),
            "valued_states": float(len(wanted)),
            "explained_variance": _explained(prefixes, values, totals),
        }
        return replace(experience, advantages=advantages, figures=figures)

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        tokenizer = self.judging.policy.adapter.base.tokenizer
        return list(tokenizer.batch_decode([[token] for token in ids]))

    def _values(
        self, rollout: Rollout, rows: Sequence[PromptRow], wanted: Sequence[Prefix]
    ) -> dict[Prefix, float]:
        """Mean reward of fresh rollouts from each state. States with as many tokens behind them
        have as many left, so those are sampled together.
        """
        values: dict[Prefix, float] = {}
        for used in sorted({len(tokens) for _, tokens in wanted}):
            states = [prefix for prefix in wanted if len(prefix[1]) == used]
            rewards = self._rewards(rollout, rows, states, used)
            values |= dict(zip(states, rewards.mean(axis=1).tolist(), strict=True))
        return values

    def _rewards(
        self, rollout: Rollout, rows: Sequence[PromptRow], states: Sequence[Prefix], used: int
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Rewards of whole completions continued from these states, shape (states, rollouts)."""
        policy, count = self.judging.policy, self.settings.vine_rollouts
        limit = self.settings.max_completion_length - used
        plan = replace(policy.sampling_plan(group_size=count), max_tokens=limit)
        prompts = [rollout.prompts[number] + tokens for number, tokens in states]
        continued = completion_ids(policy.rollout(prompts, plan))
        whole = [
            [*states[row // count][1], *continuation] for row, continuation in enumerate(continued)
        ]
        texts = list(policy.adapter.base.tokenizer.batch_decode(whole, skip_special_tokens=True))
        owners = [rows[number] for number, _ in states]
        result = judge(self.judging.reward, owners, texts, whole, count, self.judging.progress)
        return result.total.reshape(len(states), count)

    def state_dict(self) -> dict[str, Any]:
        """Nothing is learnt."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is learnt."""


def _explained(
    prefixes: Sequence[Sequence[Prefix]], values: dict[Prefix, float], totals: Tensor | Any
) -> float:
    """Share of the outcomes' variance that the values of the states on their way explain."""
    outcome = np.repeat(totals, [len(several) for several in prefixes])
    known = np.array([values[prefix] for several in prefixes for prefix in several])
    spread = float(outcome.var())
    return 1.0 - float((outcome - known).var()) / spread if spread else 0.0
