"""Signs that a run cannot learn, in plain words and with a cure."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.report.records import RoundRow

MAX_ZERO_SIGNAL = 0.95
MAX_TRUNCATED = 0.9
SKIPPED_IN_A_ROW = 3
WINDOW = 3
"""Rounds averaged: reported figures carry privacy noise, and one of them alone may mislead."""


def warnings(rows: Sequence[RoundRow]) -> list[str]:
    """Say what stops the run from learning now, if anything does.

    Parameters
    ----------
    rows:
        Rounds so far, oldest first.

    Returns
    -------
    list[str]
        One sentence with the fault and one with the cure for each. Empty for a healthy run.
    """
    rounds = [row for row in rows if row.round > 0]
    found = (_no_signal(rounds), _truncated(rounds), _skipped(rounds))
    return [warning for warning in found if warning]


def _no_signal(rounds: Sequence[RoundRow]) -> str:
    share = _recent([row.metrics.get("zero_signal") for row in rounds])
    if share is None or share <= MAX_ZERO_SIGNAL:
        return ""
    return (
        f"In {_percent(share)} of the groups every completion has the same reward, "
        "so there is nothing to learn from. "
        "If rewards are low, use easier prompts, a finer reward, or raise grpo.temperature or "
        "grpo.group_size; if they are high, the model has learnt these prompts."
    )


def _truncated(rounds: Sequence[RoundRow]) -> str:
    share = _recent([row.metrics.get("truncated") for row in rounds])
    if share is None or share <= MAX_TRUNCATED:
        return ""
    return (
        f"{_percent(share)} of the completions reach the length limit without an end "
        "and take no part in the update. "
        "Raise grpo.max_completion_length, or check that the model ends its answers with the "
        "tokenizer's end token."
    )


def _skipped(rounds: Sequence[RoundRow]) -> str:
    last = rounds[-SKIPPED_IN_A_ROW:]
    if len(last) < SKIPPED_IN_A_ROW or any(row.applied for row in last):
        return ""
    reason = last[-1].reason or "no reason given"
    return (
        f"Rounds {last[0].round} to {last[-1].round} changed nothing: {reason}. "
        "Check that enough nodes are online and finish in time (federation.min_clients, "
        "federation.round_timeout_s)."
    )


def _recent(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None][-WINDOW:]
    return sum(known) / len(known) if known else None


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0):.0%}".replace("%", " %")
