"""Grounding: a completion should say what the given facts say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedgrpo.ground.chats import Chat
from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.registry import register_reward
from fedgrpo.rewards.verifiable.verifiers import completion_text

SUPPORT = 0.6
"""Share of its content words that supports a claim or a fact."""

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_STOP_WORDS = frozenset(
    _WORD.findall("""
    a an and are as at be been but by for from had has have he her his i in is it its of on or she
    that the their them they this to was we were which who will with you
""")
)


@register_reward("grounding")
def grounding(
    prompts: Sequence[str | Chat],
    completions: Sequence[str | Chat],
    facts: Sequence[Sequence[str] | None],
    **_: object,
) -> list[float | None]:
    """Reward the harmonic mean of two shares: claims that the facts support, and facts that are
    told.

    Precision alone is won by saying nothing, recall by saying everything. A claim is a sentence; it
    is supported if all its numbers and at least :data:`SUPPORT` of its content words occur in the
    facts. A fact is told if the same holds of it and the completion. Words are compared in lower
    case without inflection, so a negation goes unnoticed: :class:`JudgedGrounding` reads, at the
    price of a forward pass a fact. (Overlap as in token-level F1 of SQuAD, arXiv 1606.05250.)

    The column ``facts`` holds a list of texts; a row without any is left to the other rewards.
    """
    return [
        _grounded(completion_text(given), checked) if (checked := check_facts(known)) else None
        for given, known in zip(completions, facts, strict=True)
    ]


def check_facts(facts: object) -> list[str]:
    """Return a row's facts as a list, empty for None.

    Raises
    ------
    RewardError
        If it is not a list of texts.
    """
    if facts is None:
        return []
    listed = list(facts) if isinstance(facts, Sequence) and not isinstance(facts, str) else [None]
    if not all(isinstance(fact, str) for fact in listed):
        raise RewardError(
            f"the column 'facts' holds a {type(facts).__name__} that is no list of texts",
            cure='write "facts": ["...", "..."]',
        )
    return [str(fact) for fact in listed]


def _grounded(text: str, facts: Sequence[str]) -> float:
    claims = [words for part in _SENTENCE.split(text) if (words := _content(part))]
    known = set().union(*map(_content, facts))
    said = _content(text)
    told = [words for fact in facts if (words := _content(fact))]
    precision = _share([_supported(claim, known) for claim in claims])
    recall = _share([_supported(fact, said) for fact in told])
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _content(text: str) -> set[str]:
    """Numbers and words that carry meaning, lower case."""
    return set(_WORD.findall(text.lower())) - _STOP_WORDS


def _supported(claim: set[str], known: set[str]) -> bool:
    numbers = {word for word in claim if word[0].isdigit()}
    return numbers <= known and len(claim & known) >= SUPPORT * len(claim)


def _share(verdicts: Sequence[bool]) -> float:
    return sum(verdicts) / len(verdicts) if verdicts else 0.0
