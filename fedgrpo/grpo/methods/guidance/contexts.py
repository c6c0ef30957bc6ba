"""Sampling from the product of two contexts: pi(o | prompt)^w pi(o | prompt and answer)^(1 - w).

Early in training the answer in sight lifts completions that the plain prompt would hardly ever
give; as w goes to 1 the policy is left to itself. The loss is taken under the plain prompt. The
rollout's log-probabilities are the product's, token by token, so the ratio that a loss forms of
them is the importance weight. A whole completion's weight is a product of many such ratios, whose
variance grows exponentially with its length; the preset's loss (CISPO) therefore weighs token by
token and caps at 5, which is biased towards the product's distribution, less and less as w goes
to 1, and not at all from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.learning.judging import Judging
from fedgrpo.grpo.methods.guidance.base import PlainPrompt, register_guide
from fedgrpo.grpo.methods.guidance.templates import check_guidance, fill_prompt
from fedgrpo.grpo.rollout.sampling import Rollout
from fedgrpo.model.encoding import encode_prompt


def plain_power(batch: int, start: float, batches: int) -> float:
    """Power w of the plain prompt in batch number ``batch`` (from 0): from ``start`` to 1 in equal
    steps over ``batches`` batches.
    """
    return min(1.0, start + (1.0 - start) * batch / batches)


@register_guide("contexts")
class InformedGuide(PlainPrompt):
    """Shows the answer, less and less.

    Raises
    ------
    SettingsError
        If ``grpo.informed_prompt`` has other fields than it must.
    DataError
        If a row lacks the reference answer. Names its number only.
    """

    def __init__(self, judging: Judging) -> None:
        super().__init__(judging)
        check_guidance(self.settings, judging.rows, "informed_prompt", {"prompt", "answer"})
        self.start_round()

    def start_round(self) -> None:
        """Show the answer as much as at the start again."""
        self.batches = 0

    def rollout(self, rows: Sequence[PromptRow], encoded: Sequence[tuple[int, ...]]) -> Rollout:
        """Sample from the product."""
        settings = self.settings
        power = plain_power(self.batches, settings.informed_start, settings.informed_batches)
        self.batches += 1
        plan = self.policy.sampling_plan()
        if power == 1:
            return self.policy.rollout(encoded, plan)
        informed = [self._informed(row) for row in rows]
        return self.policy.mixed_rollout([encoded, informed], [power, 1 - power], plan)

    def _informed(self, row: PromptRow) -> tuple[int, ...]:
        answer = str(row.columns[self.settings.answer_column])
        filled = fill_prompt(row, self.settings.informed_prompt, answer=answer)
        base = self.policy.adapter.base
        return tuple(encode_prompt(base.tokenizer, filled, base.chat))

    def state_dict(self) -> dict[str, Any]:
        """Batches so far."""
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Carry on with the batch that is next."""
        self.batches = int(state["batches"])
