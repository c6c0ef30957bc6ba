"""Critique-GRPO as a guide (arXiv 2506.03106): see
:mod:`fedgrpo.grpo.methods.guidance.refinement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.learning.judging import Judging
from fedgrpo.grpo.methods.guidance.base import PlainPrompt, register_guide
from fedgrpo.grpo.methods.guidance.refinement import (
    indicative_critique,
    join_best,
    refinement_prompts,
)
from fedgrpo.grpo.methods.guidance.templates import check_guidance
from fedgrpo.grpo.rollout.experience import Experience

ROOM_FOR_CRITIQUE = 4
"""A prompt with a completion and its critique may be this many times as long as a prompt."""


@register_guide("critique")
class CritiqueGuide(PlainPrompt):
    """Every completion is criticised and tried again; the best attempt joins its group.

    Raises
    ------
    SettingsError
        If ``grpo.critique_prompt`` has other fields than it must.
    DataError
        If a row lacks the reference answer. Names its number only.
    """

    def __init__(self, judging: Judging) -> None:
        super().__init__(judging)
        fields = {"prompt", "completion", "critique"}
        check_guidance(self.settings, judging.rows, "critique_prompt", fields)

    def join(self, experience: Experience, rows: Sequence[PromptRow]) -> Experience:
        """Groups of G + 1, with advantages over all of them."""
        settings, judging = self.settings, self.judging
        prompts = refinement_prompts(
            self.policy.adapter.base.tokenizer,
            rows,
            experience.rollout,
            experience.rewards.total,
            indicative_critique(settings.passing_reward, settings.answer_column),
            template=settings.critique_prompt,
            limit=ROOM_FOR_CRITIQUE * settings.max_prompt_length,
            style=self.policy.adapter.base.chat,
        )
        tried = self.policy.rollout(prompts, self.policy.sampling_plan(group_size=1))
        asked = [row for row in rows for _ in range(experience.rollout.group_size)]
        verdicts = judging.reward_of(tried, asked)
        groups = join_best(
            experience.rollout,
            experience.rewards,
            tried,
            verdicts,
            self.policy.logps,
            tokens_per_batch=settings.tokens_per_batch,
        )
        refined = groups.rewards.total[groups.refined.numpy()]
        figures = {**experience.figures, "refined_reward": float(refined.mean())}
        return replace(
            experience,
            rollout=groups.rollout,
            rewards=groups.rewards,
            advantages=judging.advantages(groups.rollout, groups.rewards, len(rows)),
            figures=figures,
            refined=groups.refined,
        )
