"""What one prompt may cost a reward that runs a model: public figures, beyond which its row counts
nothing. Without them one row with a thousand facts takes the time of all the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.ground.errors import RewardError

MOST_FACTS = 8
"""Facts of a row."""
FACT_BYTES = 512
"""UTF-8 bytes of a fact; no tokenizer makes more tokens of them."""
FRAME_TOKENS = 1024
"""Tokens of a question beside prompt and completion: the template's words and a fact."""


def question_tokens(prompt: int, completion: int) -> int:
    """Most tokens of a question about a prompt and a completion of at most so many tokens: both may
    be twice as long where another tokenizer reads their text.
    """
    return 2 * (prompt + completion) + FRAME_TOKENS


def check_fact_limits(facts: Sequence[object]) -> None:
    """Refuse a row's facts if they are too many or too long.

    Raises
    ------
    RewardError
        Without their text.
    """
    for known in facts:
        listed = known if isinstance(known, Sequence) else ()
        if len(listed) > MOST_FACTS:
            raise RewardError(
                f"a row has {len(listed)} facts, a judge takes {MOST_FACTS}",
                cure="keep those that matter most",
            )
        if any(isinstance(f, str) and len(f.encode(errors="replace")) > FACT_BYTES for f in listed):
            raise RewardError(
                f"a row has a fact of more than {FACT_BYTES} bytes", cure="split or shorten it"
            )


def check_questions(encoded: Sequence[Sequence[int]], most: int | None) -> None:
    """Refuse questions of more than ``most`` tokens; None takes all."""
    longest = max(map(len, encoded), default=0)
    if most is not None and longest > most:
        raise RewardError(
            f"a question to a judge has {longest} tokens, {most} are allowed",
            cure="shorten the judge's template",
        )
