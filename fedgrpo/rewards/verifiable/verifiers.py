"""Built-in rewards that compare a completion with the ``answer`` column."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.registry import register_reward

# A sign belongs to the number unless something is subtracted: "5-3" ends in 3. Commas may group
# thousands.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]])[-+\u2212])?"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"
    r"(?:[eE][-+]?\d+)?"
)

RELATIVE_TOLERANCE = 1e-6
"""Relative difference up to which :func:`numeric_match` calls two numbers equal."""

ABSOLUTE_TOLERANCE = 1e-9
"""The same near zero, absolute."""


def completion_text(completion: str | Chat) -> str:
    """Return what the model answered, for text and for chat prompts alike.

    Parameters
    ----------
    completion:
        Text, or the messages that TRL passes for chat prompts, of which the last is the answer.

    Raises
    ------
    RewardError
        If it is neither.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list) and completion:
        last = completion[-1]
        content = last.get("content") if isinstance(last, dict) else None
        if isinstance(content, str):
            return content
    raise RewardError(
        f"a completion of type {type(completion).__name__} has no text",
        cure='pass text or [{"role": "assistant", "content": "..."}]',
    )


@register_reward("exact_match")
def exact_match(
    prompts: Sequence[str | Chat],
    completions: Sequence[str | Chat],
    answer: Sequence[Any],
    **_: object,
) -> list[float | None]:
    """Reward 1 for a completion that equals ``answer``, both without surrounding white space.

    A row whose answer is ``None`` or NaN is left to the other rewards. Numbers are compared as
    Python writes them, whole ones also without a fraction: tables keep whole numbers with gaps
    between them as 12.0.
    """
    return [
        None if _is_missing(wanted) else float(completion_text(given).strip() in _written(wanted))
        for given, wanted in zip(completions, answer, strict=True)
    ]


def _is_missing(wanted: object) -> bool:
    return wanted is None or (isinstance(wanted, float) and math.isnan(wanted))


def _written(wanted: object) -> tuple[str, ...]:
    """Ways to write an answer."""
    whole = isinstance(wanted, float) and wanted.is_integer()
    return str(wanted).strip(), *([f"{wanted:.0f}"] if whole else [])


@register_reward("numeric_match")
def numeric_match(
    prompts: Sequence[str | Chat],
    completions: Sequence[str | Chat],
    answer: Sequence[Any],
    **_: object,
) -> list[float | None]:
    """Reward 1 for a completion whose last number equals ``answer`` within the tolerances.

    The answer may be a number or a text of which the last number counts ("#### 18"). A row whose
    answer has no number is left to the other rewards.
    """
    return [
        _same_number(completion_text(given), wanted)
        for given, wanted in zip(completions, answer, strict=True)
    ]


def _same_number(text: str, wanted: object) -> float | None:
    target = last_number(str(wanted))
    if target is None:
        return None
    given = last_number(text)
    return float(
        given is not None
        and math.isclose(given, target, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
    )


def last_number(text: str) -> float | None:
    """Return the last number in a text, like ``1,234.5``, ``-3``, ``.5`` or ``6e-3``, or None."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    value = float(found[-1].replace(",", "").replace("\u2212", "-"))
    return value if math.isfinite(value) else None
