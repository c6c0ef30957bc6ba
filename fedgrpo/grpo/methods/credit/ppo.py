"""Proximal policy optimisation's critic: a linear value head and GAE (arXiv 1707.06347,
1506.02438).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.learning.judging import Judging, shaped
from fedgrpo.grpo.methods.credit.base import register_credit
from fedgrpo.grpo.methods.credit.gae import (
    explained_variance,
    gae,
    outcome_rewards,
    value_loss,
    whiten,
)
from fedgrpo.grpo.rollout.experience import Experience

VALUE_PASSES = 4
"""Steps of the value head on each batch of completions."""


@register_credit("gae")
class ValueHead:
    """A linear critic on the policy's last hidden state, learnt beside it.

    The head reads what the policy computes and sends no gradient back into the adapter: the policy
    loss alone decides what travels. It starts at zero, so the first advantages are the returns.
    """

    def __init__(self, judging: Judging) -> None:
        self.judging = judging
        self.policy = judging.policy
        self.settings = judging.settings
        width = self.policy.adapter.causal.config.get_text_config().hidden_size
        self.head = nn.Linear(width, 1).to(self.policy.adapter.base.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.optimiser = torch.optim.AdamW(
            self.head.parameters(), lr=self.settings.value_learning_rate, weight_decay=0.0
        )

    def assign(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Advantages from the head as it stands, whitened over the batch; then the head learns from
        the returns.
        """
        rollout, settings = experience.rollout, self.settings
        mask = rollout.mask
        hidden = self.policy.hidden_states(rollout)
        with torch.no_grad():
            values = self._values(hidden, mask)
        totals = shaped(self.judging.settings, rollout, experience.rewards)
        rewards = outcome_rewards(torch.from_numpy(totals).float(), mask)
        advantages, returns = gae(
            rewards, values, mask, discount=settings.discount, trace=settings.gae_lambda
        )
        figures = {
            "explained_variance": explained_variance(values, returns, mask),
            "value_loss": self._learn(hidden, values, returns, mask),
        }
        return replace(experience, advantages=whiten(advantages, mask), figures=figures)

    def _learn(self, hidden: Tensor, old: Tensor, returns: Tensor, mask: Tensor) -> float:
        """A few steps on the clipped value loss; returns the first one's loss."""
        first = 0.0
        for number in range(VALUE_PASSES):
            loss = value_loss(
                self._values(hidden, mask), old, returns, mask, clip=self.settings.value_clip
            )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            first = first if number else float(loss)
        return first

    def _values(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Value before each token, float32 on the CPU, shape (N, T)."""
        values = self.head(hidden)[:, 0].cpu()
        return torch.zeros(mask.shape).masked_scatter(mask, values)

    def state_dict(self) -> dict[str, Any]:
        """Head and optimiser."""
        return {"head": self.head.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over head and optimiser."""
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
