"""From prompts to what an update learns from: rollout, rewards and advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedgrpo.data.prompts import PromptRow, collate_columns
from fedgrpo.ground.chats import Chat
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.rewards.calling.context import TrainerState
from fedgrpo.rewards.composite import RewardMixture, RewardResult, join_results

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Experience:
    """Judged completions of P prompts, G each.

    Attributes
    ----------
    rollout:
        The completions.
    rewards:
        Weighted total and each function's own values, shape (P*G,).
    advantages:
        Float32 tensor, shape (P*G,), or (P*G, T) where tokens of a completion differ.
    figures:
        What else there is to say of how they came about, by name.
    refined:
        Bool, shape (P*G,): completions that a critique helped to. None: no such thing was asked
        for.
    """

    rollout: Rollout
    rewards: RewardResult
    advantages: Tensor
    figures: Mapping[str, float] = field(default_factory=dict)
    refined: Tensor | None = None

    def reward_means(self) -> dict[str, float]:
        """Mean of each reward function over the completions that it applies to; NaN if none."""
        return {name: nanmean(v) for name, v in self.rewards.per_function.items()}

    def reward_spreads(self) -> dict[str, float]:
        """Mean over groups of each reward function's standard deviation within the group.

        Zero says that the function tells no completion from another: it teaches nothing.
        """
        groups = (self.prompts, self.rollout.group_size)
        return {
            name: float(np.mean([_spread(group) for group in values.reshape(groups)]))
            for name, values in self.rewards.per_function.items()
        }

    @property
    def prompts(self) -> int:
        """Number of prompts, P."""
        return len(self.rollout.prompts)

    def useful(self, *, with_silent: bool, with_truncated: bool = False) -> list[int]:
        """Completions that move the model: they ended (or are punished for not ending), and have an
        advantage (or are held by a penalty that needs none).
        """
        teaches = (self.rollout.ended | with_truncated) & (self._signal() | with_silent)
        return teaches.nonzero()[:, 0].tolist()

    def silent_groups(self) -> list[int]:
        """Numbers of the prompts whose completions all have advantage zero."""
        return self._silent().nonzero()[:, 0].tolist()

    def part(self, prompts: Sequence[int]) -> Experience:
        """The groups of the prompts with these positions."""
        if list(prompts) == list(range(self.prompts)):
            return self
        size = self.rollout.group_size
        rows = (torch.tensor(prompts)[:, None] * size + torch.arange(size)).flatten()
        rollout = Rollout(
            tuple(self.rollout.prompts[i] for i in prompts),
            self.rollout.tokens[rows],
            self.rollout.logps[rows],
            self.rollout.mask[rows],
            self.rollout.ended[rows],
            size,
        )
        rewards = RewardResult(
            self.rewards.total[rows.numpy()],
            {name: values[rows.numpy()] for name, values in self.rewards.per_function.items()},
            measured={n: values[rows.numpy()] for n, values in self.rewards.measured.items()},
        )
        refined = None if self.refined is None else self.refined[rows]
        return Experience(rollout, rewards, self.advantages[rows], self.figures, refined)

    def _signal(self) -> Tensor:
        """Which completions have an advantage, shape (P*G,)."""
        return (self.advantages.reshape(len(self.advantages), -1) != 0).any(1)

    def _silent(self) -> Tensor:
        """Which groups have none, shape (P,)."""
        return ~self._signal().reshape(self.prompts, self.rollout.group_size).any(1)

    def per_prompt(self) -> dict[str, Floats]:
        """Figures of each prompt, shape (P,): mean reward, shares in [0, 1] of what cannot teach,
        and the mean of each metric of users' own, NaN where that told nothing.
        """
        groups = (self.prompts, self.rollout.group_size)
        truncated = (~self.rollout.ended).reshape(groups).double().mean(1)
        return {
            "reward": self.rewards.total.reshape(groups).mean(axis=1),
            "zero_signal": self._silent().double().numpy(),
            "truncated": truncated.numpy(),
            **{name: _means(v.reshape(groups)) for name, v in self.rewards.measured.items()},
        }


def judge(
    reward: RewardMixture,
    rows: Sequence[PromptRow],
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
    group_size: int,
    state: TrainerState | None = None,
) -> RewardResult:
    """Reward completions, given as ``texts`` and as token ``ids``, ``group_size`` side by side for
    each row. Rewards get the ids as ``completion_ids``, TRL's name.

    Parameters
    ----------
    state:
        How far the training has come; then a group that cannot be judged costs itself alone. None
        tells nothing of it, and what fails is raised.

    Raises
    ------
    RewardError
        If a reward function fails.
    """
    repeated = [row for row in rows for _ in range(group_size)]
    # A completion takes the form of its prompt: text, or one assistant message (TRL's convention).
    asked = [row.for_model() for row in repeated]
    pairs = [_as_messages(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
    columns = {**collate_columns(repeated), "completion_ids": ids}
    prompts, completions = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
    if state is None:
        return reward(prompts, completions, columns)
    return reward.judge(prompts, completions, columns, group_size, state)


def _as_messages(prompt: str | Chat, text: str) -> tuple[str | Chat, str | Chat]:
    """Prompt and completion as rewards take them: an assistant's message that was begun in the
    prompt and continued belongs to the completion (TRL's convention).
    """
    if isinstance(prompt, str):
        return prompt, text
    begun = prompt[-1]["content"] if prompt[-1]["role"] == "assistant" else ""
    asked = prompt[:-1] if prompt[-1]["role"] == "assistant" else prompt
    return asked, [{"role": "assistant", "content": begun + text}]


def join_experiences(parts: Sequence[Experience]) -> Experience:
    """Put the prompts of several experiences behind each other, without figures and marks."""
    rollouts = [part.rollout for part in parts]
    rollout = Rollout(
        tuple(prompt for rollout in rollouts for prompt in rollout.prompts),
        torch.cat([rollout.tokens for rollout in rollouts]),
        torch.cat([rollout.logps for rollout in rollouts]),
        torch.cat([rollout.mask for rollout in rollouts]),
        torch.cat([rollout.ended for rollout in rollouts]),
        rollouts[0].group_size,
    )
    rewards = join_results([part.rewards for part in parts])
    return Experience(rollout, rewards, torch.cat([part.advantages for part in parts]))


def replace_groups(
    old: Experience, groups: Sequence[int], fresh: Experience
) -> tuple[Rollout, RewardResult]:
    """Put the groups of ``fresh`` in the place of ``old``'s groups with these numbers, as many as
    both have; the rest stays. Advantages are left to be computed anew.
    """
    size = old.rollout.group_size
    pairs = dict(zip(groups, range(fresh.prompts), strict=False))
    there = torch.tensor(list(pairs))[:, None] * size + torch.arange(size)
    rows, taken = there.flatten(), torch.arange(len(pairs) * size)

    def joined(name: str) -> Tensor:
        values: Tensor = getattr(old.rollout, name).clone()
        values[rows] = getattr(fresh.rollout, name)[taken]
        return values

    def joined_rewards(ours: Floats, theirs: Floats) -> Floats:
        values = ours.copy()
        values[rows.numpy()] = theirs[: len(taken)]
        return values

    rollout = Rollout(
        tuple(
            fresh.rollout.prompts[pairs[i]] if i in pairs else prompt
            for i, prompt in enumerate(old.rollout.prompts)
        ),
        joined("tokens"),
        joined("logps"),
        joined("mask"),
        joined("ended"),
        size,
    )
    per_function = {
        name: joined_rewards(values, fresh.rewards.per_function[name])
        for name, values in old.rewards.per_function.items()
    }
    measured = {
        name: joined_rewards(values, fresh.rewards.measured[name])
        for name, values in old.rewards.measured.items()
    }
    total = joined_rewards(old.rewards.total, fresh.rewards.total)
    return rollout, RewardResult(total, per_function, measured=measured)


def nanmean(values: Floats) -> float:
    """Mean of what is known; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _means(groups: Floats) -> Floats:
    """Mean of what is known in each row of an array of shape (P, G), shape (P,); NaN if nothing."""
    return np.array([nanmean(group) for group in groups])


def _spread(group: Floats) -> float:
    """Sample standard deviation of what is known; exactly 0 where all agree."""
    known = group[~np.isnan(group)]
    return float(known.std(ddof=1)) if known.size > 1 and np.ptp(known) > 0 else 0.0
