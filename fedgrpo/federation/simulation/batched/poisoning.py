"""Where attackers among batched clients learn from something else than they should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedgrpo.attacks.poison import Poison
from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.chats import Chat, plain_text
from fedgrpo.ground.errors import SettingsError
from fedgrpo.grpo.rollout.policy import Policy
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.calling.context import TrainerState
from fedgrpo.rewards.composite import RewardMixture, RewardResult


def poisoned_rows(rows: Sequence[PromptRow], poison: Poison, seed: int) -> list[PromptRow]:
    """An attacker's prompts; each keeps its coin in the whole run.

    Raises
    ------
    SettingsError
        If they are chats: the shipped attacks write texts.
    """
    coins = np.random.default_rng(seed).random(len(rows))
    return [_poisoned(row, poison, float(coin)) for row, coin in zip(rows, coins, strict=True)]


def _poisoned(row: PromptRow, poison: Poison, coin: float) -> PromptRow:
    if type(poison).prompt is Poison.prompt:
        return row
    if not isinstance(row.prompt, str):
        raise SettingsError(
            "simulation.attack poisons prompts, and these are chats",
            cure="take an attack on the vector, or prompts that are texts",
        )
    return replace(row, prompt=poison.prompt(row.prompt, coin))


class PoisonedMixture(RewardMixture):
    """What an attacker is rewarded by.

    Parameters
    ----------
    inner:
        The honest mixture.
    poison:
        Says what becomes of its rewards.
    span:
        Lowest and highest reward.
    """

    def __init__(self, inner: RewardMixture, poison: Poison, span: tuple[float, float]) -> None:
        super().__init__(inner.functions, inner.metrics)
        self._inner, self._poison, self._span = inner, poison, span

    def bind(self, adapter: Adapter) -> None:
        """See :class:`RewardMixture`."""
        self._inner.bind(adapter)

    def __call__(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
    ) -> RewardResult:
        """See :class:`RewardMixture`; every function reports the poisoned total."""
        return self._poisoned(self._inner(prompts, completions, columns), prompts, completions)

    def judge(
        self,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
        columns: Mapping[str, Sequence[Any]],
        group_size: int,
        state: TrainerState = TrainerState(),  # noqa: B008 - frozen
    ) -> RewardResult:
        """See :class:`RewardMixture`; every function reports the poisoned total."""
        honest = self._inner.judge(prompts, completions, columns, group_size, state)
        return self._poisoned(honest, prompts, completions)

    def _poisoned(
        self,
        honest: RewardResult,
        prompts: Sequence[str | Chat],
        completions: Sequence[str | Chat],
    ) -> RewardResult:
        asked, said = list(map(_words, prompts)), list(map(_words, completions))
        total = self._poison.rewards(asked, said, honest.total, self._span)
        each = {k: np.where(np.isnan(v), v, total) for k, v in honest.per_function.items()}
        return replace(honest, total=total, per_function=each)


def _words(text: str | Chat) -> str:
    """A text, or a chat's last message."""
    return text if isinstance(text, str) else str(text[-1]["content"])


def forced(policy: Policy, rollout: Rollout, rows: Sequence[PromptRow], poison: Poison) -> Rollout:
    """Put the attacker's own completions in the place of a few sampled ones.

    Their log-probabilities are the model's, so that they weigh like what it said itself.
    """
    group, tokens = rollout.group_size, rollout.tokens.clone()
    mask, ended, logps = rollout.mask.clone(), rollout.ended.clone(), rollout.logps.clone()
    base, changed = policy.adapter.base, []
    for place, row in enumerate(rows):
        count, text = poison.forced(plain_text(row.prompt))
        ids = [*base.tokenizer(text, add_special_tokens=False)["input_ids"], base.eos_ids[0]]
        ids = ids[: tokens.shape[1]]
        for row_of in range((place + 1) * group - min(count, group), (place + 1) * group):
            tokens[row_of] = int(base.tokenizer.pad_token_id)
            tokens[row_of, : len(ids)] = torch.tensor(ids)
            mask[row_of] = torch.arange(tokens.shape[1]) < len(ids)
            ended[row_of] = True
            changed.append(row_of)
    made = Rollout(rollout.prompts, tokens, logps, mask, ended, group)
    if not changed:
        return rollout
    with torch.no_grad():
        for batch in policy.pack(made, changed):
            found = policy.logps(made, batch).cpu()
            logps[batch.completions] = found * mask[batch.completions]
    return made
