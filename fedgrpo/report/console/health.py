"""Signs that a run cannot learn, in plain words and with a cure."""

from __future__ import annotations

from collections.abc import Sequence

from fedgrpo.ground.signs import MAX_TRUNCATED, MAX_ZERO_SIGNAL, no_signal, truncated
from fedgrpo.report.records import RoundRow

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
    if rows and rows[-1].alone:  # Its trainer looked closer, see fedgrpo.grpo.learning.health.
        return [warning for row in rows for warning in row.warnings]
    rounds = [row for row in rows if row.round > 0]
    silent, cut = _recent(rounds, "zero_signal"), _recent(rounds, "truncated")
    found = (
        no_signal(_percent(silent)) if silent > MAX_ZERO_SIGNAL else "",
        truncated(_percent(cut)) if cut > MAX_TRUNCATED else "",
        _skipped(rounds),
    )
    return [warning for warning in found if warning]


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


def _recent(rounds: Sequence[RoundRow], name: str) -> float:
    """Mean of a metric over the last rounds that tell it; 0 if none does."""
    known = [row.metrics[name] for row in rounds if name in row.metrics][-WINDOW:]
    return sum(known) / len(known) if known else 0.0


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0):.0%}".replace("%", " %")
