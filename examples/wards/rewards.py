"""What an answer to a note is worth: six rewards, each between 0 and 1.

A valid answer is one JSON object and nothing else. The first three give part of their worth for
part of the way, since a model that never gets there by chance learns nothing from all or nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any

KEYS = {"ward", "urgency", "reason"}
WARDS = {"heart", "bones", "brain", "skin", "mind"}
EMPTY_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """a an and are at but by for from has he her his in is it no not of on or she so that the
        to was were with""",
    )
)
MOST_WORDS = 12


def parsed(completion: list[dict[str, str]]) -> dict[str, Any] | None:
    """The answer, or None where it is no JSON object."""
    try:
        answer = json.loads(completion[0]["content"])
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def valid_json(completions: list[Any], **_: Any) -> list[float]:
    """1 for a JSON object, 0.3 for an answer that begins as one, else 0."""
    return [_validity(completion) for completion in completions]


def _validity(completion: list[dict[str, str]]) -> float:
    if parsed(completion) is not None:
        return 1.0
    return 0.3 if completion[0]["content"].lstrip().startswith('{"') else 0.0


def right_keys(completions: list[Any], **_: Any) -> list[float]:
    """Share of the three keys that are there, less one key for each that nobody asked for."""
    return [_keys(parsed(completion)) for completion in completions]


def _keys(answer: dict[str, Any] | None) -> float:
    if answer is None:
        return 0.0
    return max(0.0, (len(KEYS & answer.keys()) - len(answer.keys() - KEYS)) / len(KEYS))


def right_values(completions: list[Any], **_: Any) -> list[float]:
    """Share of the three values that are what the form takes, right or wrong: one of the wards, a
    whole number from 1 to 5, a text of at least two words.
    """
    return [_values(parsed(completion) or {}) for completion in completions]


def _values(answer: dict[str, Any]) -> float:
    ward, urgency, reason = (answer.get(key) for key in ("ward", "urgency", "reason"))
    fits = (
        isinstance(ward, str) and ward in WARDS,
        type(urgency) is int and 1 <= urgency <= 5,
        isinstance(reason, str) and len(_words(reason)) >= 2,
    )
    return sum(fits) / len(fits)


def right_ward(completions: list[Any], ward: list[str], **_: Any) -> list[float]:
    """1 for the ward that the note speaks of."""
    answers = [parsed(completion) for completion in completions]
    return [float(bool(a) and a.get("ward") == w) for a, w in zip(answers, ward, strict=True)]  # type: ignore[union-attr]


def near_urgency(completions: list[Any], urgency: list[int], **_: Any) -> list[float]:
    """1 for the urgency itself, 0.5 for one beside it, else 0."""
    answers = [parsed(completion) for completion in completions]
    return [_near(a, u) for a, u in zip(answers, urgency, strict=True)]


def _near(answer: dict[str, Any] | None, urgency: int) -> float:
    given = (answer or {}).get("urgency")
    if type(given) is not int:
        return 0.0
    return max(0.0, 1 - abs(given - urgency) / 2)


def grounded_reason(completions: list[Any], note: list[str], **_: Any) -> list[float]:
    """Share of the reason's words that stand in the note; three at least count, twelve at most."""
    answers = [parsed(completion) for completion in completions]
    return [_grounded(a, n) for a, n in zip(answers, note, strict=True)]


def _grounded(answer: dict[str, Any] | None, note: str) -> float:
    reason = (answer or {}).get("reason")
    given = _words(reason) if isinstance(reason, str) else []
    if not given or len(given) > MOST_WORDS:
        return 0.0
    shared = len(set(given) & set(_words(note)))
    return shared / max(3, len(set(given)))


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word not in EMPTY_WORDS]
