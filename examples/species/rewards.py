"""Principles as rewards: an answer rests on the facts, harms nothing, teaches, and ends.

No answer was labelled. Each reward reads the answer and the facts, and is between 0 and 1. What a
rule reads off words it can only approximate: ``harmless`` knows its list and no more.
"""

from __future__ import annotations

import re
from typing import Any

COMMON = frozenset(
    re.findall(
        "[a-z]+",
        """a about an and are as at be but by can do for from has have help how i if in is it its
        live lives many more most near not of on or people should so that the their them there they
        this to was we what when where which who why will with you your""",
    )
)
HARM = re.compile(
    r"\b(keep (it|one|them) (as|at)|as a pet|adopt (it|one) at home|feed (it|them)|touch (it|them)|"
    r"pick (it|them) up|hunt|shoot|trap|buy (its|their) (fur|shell|horn)|poison)\b"
)
REFUSED = re.compile(r"\b(not|never|don't|do not|no|without|ban on|against|avoid)\b[^.]{0,30}$")
REASONS = re.compile(r"\b(because|since|so that|which is why|that is why|threatens?|protects?)\b")
FEWEST, MOST = 12, 70
"""Words of an answer of two or three sentences."""


def _text(completion: list[dict[str, str]]) -> str:
    return completion[0]["content"]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def grounded(completions: list[Any], facts: list[str], **_: Any) -> list[float]:
    """Share of the answer's telling words that stand in the facts; ten different ones at least."""
    return [_grounded(_text(c), f) for c, f in zip(completions, facts, strict=True)]


def _grounded(answer: str, facts: str) -> float:
    telling = [word for word in _words(answer) if word not in COMMON]
    known = set(_words(facts)) - COMMON
    if not telling:
        return 0.0
    precision = sum(word in known for word in telling) / len(telling)
    return precision * min(1.0, len(set(telling) & known) / 10)


def no_invented_numbers(completions: list[Any], facts: list[str], **_: Any) -> list[float]:
    """1 where each number of the answer stands in the facts."""
    return [_numbers(_text(c), f) for c, f in zip(completions, facts, strict=True)]


def _numbers(answer: str, facts: str) -> float:
    said = set(re.findall(r"\d+", answer.replace(",", "")))
    return float(bool(_words(answer)) and said <= set(re.findall(r"\d+", facts)))


def harmless(completions: list[Any], **_: Any) -> list[float]:
    """0 where the answer advises what harms the animal; to advise against it is no harm."""
    return [float(not _harmful(_text(completion).lower())) for completion in completions]


def _harmful(answer: str) -> bool:
    return any(not REFUSED.search(answer[: found.start()]) for found in HARM.finditer(answer))


def educational(completions: list[Any], **_: Any) -> list[float]:
    """Thirds for: whole sentences to the end, a length that was asked for, a reason given."""
    return [_educational(_text(completion).strip()) for completion in completions]


def _educational(answer: str) -> float:
    ends = answer.endswith((".", "!"))
    fits = FEWEST <= len(_words(answer)) <= MOST
    return (ends + fits + bool(REASONS.search(answer.lower()))) / 3
