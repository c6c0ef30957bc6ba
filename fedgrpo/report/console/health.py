"""Signs that a run cannot learn, in plain words and with a cure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fedgrpo.ground.signs import MAX_TRUNCATED, MAX_ZERO_SIGNAL, no_signal, truncated
from fedgrpo.report.records import RoundRow

SKIPPED_IN_A_ROW = 3
WINDOW = 3
"""Rounds averaged: reported figures carry privacy noise, and one of them alone may mislead."""
BELOW_START = 3
"""Evaluations in a row below the first one that say that a run does harm."""
MAX_KL_A_ROUND = 0.5
"""Nats a token by which a round may move the model; the demo's rounds move it by 0.06 at most."""


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
    fallen = below_start(rows)
    if rows and rows[-1].alone:  # Its trainer looked closer, see fedgrpo.grpo.learning.health.
        return [warning for row in rows for warning in row.warnings] + ([fallen] if fallen else [])
    rounds = [row for row in rows if row.round > 0]
    silent, cut = _recent(rounds, "zero_signal"), _recent(rounds, "truncated")
    apart = _recent(rounds, "kl")
    found = (
        fallen,
        _far(rows) or (_apart(apart) if apart > MAX_KL_A_ROUND else ""),
        no_signal(_percent(silent)) if silent > MAX_ZERO_SIGNAL else "",
        truncated(_percent(cut)) if cut > MAX_TRUNCATED else "",
        _skipped(rounds),
    )
    return [warning for warning in found if warning]


def below_start(rows: Sequence[RoundRow]) -> str:
    """Say that the last evaluations are all below the first one, if they are."""
    measured = [row for row in rows if row.sampled is not None]
    start, last = measured[:1], measured[1:][-BELOW_START:]
    if len(last) < BELOW_START or any(row.sampled >= start[0].sampled for row in last):  # type: ignore[operator]
        return ""
    at = f"{last[0].round} to {last[-1].round}"
    return (
        f"Held-out reward has been below its start in the last {BELOW_START} evaluations ({at}): "
        "training does harm. Lower the learning rate (grpo.learning_rate alone, "
        "server.learning_rate in a federation), or the noise by more prompts a round or fewer "
        "trainable values; the best adapter is kept beside the last."
    )


def _far(rows: Sequence[RoundRow]) -> str:
    """Say that a round moves the model too far, if it did between two evaluations."""
    measured = [row for row in rows if row.kl_base is not None]
    steps = [
        ((after.kl_base - before.kl_base) / (after.round - before.round), after)  # type: ignore[operator]
        for before, after in pairwise(measured)
    ]
    step, row = max(steps, key=lambda found: found[0], default=(0.0, None))
    if row is None or step <= MAX_KL_A_ROUND:
        return ""
    return (
        f"By round {row.round} the model had moved {step:.2g} nats a token in each round (KL to "
        f"start {row.kl_base:.2g}): such steps break what it can do. Lower server.learning_rate, "
        "or set grpo.kl_weight."
    )


def _apart(kl: float) -> str:
    """Say that nodes move too far in a round, as they report it between evaluations."""
    return (
        f"Nodes move {kl:.2g} nats a token from the global adapter in a round: such steps break "
        "what it can do. Lower grpo.learning_rate or grpo.steps, or set grpo.kl_weight."
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


def _recent(rounds: Sequence[RoundRow], name: str) -> float:
    """Mean of a metric over the last rounds that tell it; 0 if none does."""
    known = [row.metrics[name] for row in rounds if name in row.metrics][-WINDOW:]
    return sum(known) / len(known) if known else 0.0


def _percent(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0):.0%}".replace("%", " %")
