"""Rewards for the form of a completion, whatever it says."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.registry import RewardFunction, register_reward
from fedgrpo.rewards.verifiable.verifiers import completion_text

THINK_ANSWER = r"<think>(?:(?!</?think>).)*</think>\s*<answer>(?:(?!</?answer>).)*</answer>"
"""One block of reasoning, then one answer, nothing else (DeepSeek-R1, arXiv 2501.12948)."""


def format_match(pattern: str) -> RewardFunction:
    """Make a reward that is 1 if a regular expression matches the whole completion, else 0.

    Surrounding white space is ignored and a dot matches line breaks. Avoid nested repetitions such
    as ``(a+)+``: a completion can make Python search them for ever.

    Parameters
    ----------
    pattern:
        In Python's syntax.

    Raises
    ------
    RewardError
        If it is no regular expression.
    """
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise RewardError(
            f"format pattern {pattern!r} is no regular expression: {error}",
            cure="test it with re.compile; write a literal bracket as \\[",
        ) from None

    def format_reward(completions: Sequence[str | Chat], **_: object) -> list[float]:
        texts = (completion_text(completion).strip() for completion in completions)
        return [float(compiled.fullmatch(text) is not None) for text in texts]

    return format_reward


think_answer_format = register_reward("think_answer_format")(format_match(THINK_ANSWER))
"""1 for ``<think>...</think><answer>...</answer>``, 0 for anything else."""
