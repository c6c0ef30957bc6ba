"""How figures read on a console: numbers, durations, trends, and a round in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedgrpo.report.records import STEP, RoundRow
from fedgrpo.settings import OWN
from fedgrpo.settings.protocols import PROTOCOLS

BARS = "▁▂▃▄▅▆▇█"
WINDOW = 50
"""Rounds over which time is averaged: several evaluation intervals, mostly."""

MOST_VALUES = 6
"""Values by which accuracy is told apart in one line."""

PHASE_WORDS = {
    "": "starting",
    "waiting": "waiting for nodes",
    STEP: "training",
    "train": "training on the nodes",
    **{stage.name: stage.words for p in PROTOCOLS.values() for stage in p.phases},
    "aggregate": "applying the robust rule",
    "evaluate": "evaluating on held-out prompts",
}


def number(value: float | None, digits: int = 3, missing: str = "-") -> str:
    """Write a figure with fixed decimals, in scientific form where those show only zeros."""
    if value is None:
        return missing
    tiny = value != 0 and abs(value) < 10**-digits
    return f"{value:.1e}" if tiny else f"{value:.{digits}f}"


def short_name(function: str) -> str:
    """A reward function's own name, without the file or module that it comes from."""
    return function.rpartition(":")[2]


def prompt_words(prompt: str | list[dict[str, str]]) -> str:
    """A prompt as one text, a conversation with its roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def duration(seconds: float) -> str:
    """Write seconds as ``8 s``, ``3:07 min`` or ``1:02:09 h``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d} h"
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def ago(seconds: float) -> str:
    """Write how long ago something was: ``5 s ago``, ``2 h ago``, ``3 days ago``."""
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:.0f} days ago"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.0f} h ago"
    return f"{duration(max(0.0, seconds))} ago"


def time_left(rows: Sequence[RoundRow], rounds: int, elapsed: float = 0.0) -> float | None:
    """Estimate the seconds to the end from the mean of the last rounds.

    Parameters
    ----------
    rows:
        Rounds so far.
    rounds:
        Rounds in all.
    elapsed:
        Seconds already spent in the round under way.
    """
    costs = [sum(row.seconds.values()) for row in rows if row.round > 0][-WINDOW:]
    if not costs:
        return None
    cost = sum(costs) / len(costs)
    # A round under way saves at most its own share: a stalled one says nothing of those to come.
    return (rounds - rows[-1].round) * cost - min(max(elapsed, 0.0), cost)


def sparkline(values: Sequence[float | None], width: int = 16) -> str:
    """Draw the last ``width`` known values as bars between their least and greatest."""
    known = [value for value in values if value is not None][-width:]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    if low == high:
        return BARS[3] * len(known)
    return "".join(BARS[round((value - low) / (high - low) * 7)] for value in known)


def epsilon_words(rows: Sequence[RoundRow]) -> str:
    """Write the privacy spent so far, or ``none`` without differential privacy."""
    return number(rows[-1].epsilon, 2, missing="none") if rows else "-"


def unit_of(rows: Sequence[RoundRow]) -> str:
    """What a run counts: ``round``, or ``step`` where one trains alone."""
    return STEP if rows and rows[-1].alone else "round"


def plain_line(row: RoundRow, rows: Sequence[RoundRow], rounds: int, since: int = -1) -> str:
    """Write a finished round as one line of ASCII.

    Parameters
    ----------
    row:
        The round.
    rows:
        All rounds up to it, from which the time left is estimated.
    rounds:
        Rounds in all.
    since:
        Round of the line before: metrics are means over those that follow it.
    """
    head = f"{unit_of([row])} {row.round:>{len(str(rounds))}}/{rounds}"
    if row.round == 0:
        return "  ".join([head, "before training", *_held_out(row)])
    told = [each for each in rows if since < each.round <= row.round] or [row]
    figures = _of_steps(told) if row.alone else _of_a_round(row)
    kl = f"KL to start {number(_last_known(rows), 3)}"
    own = [f"{name.removeprefix(OWN)} {number(mean(told, name))}" for name in _own(row)]
    line = [head, f"reward {number(mean(told, 'reward'))}", kl, *figures, *own, *_held_out(row)]
    if not row.applied:
        line.insert(1, f"skipped: {' '.join(row.reason.split())}")
    left = time_left(rows, rounds)
    return "  ".join([*line, *([f"{duration(left)} left"] if left else [])])


def mean(rows: Sequence[RoundRow], name: str) -> float | None:
    """Mean of a metric over the rows that tell it."""
    known = [row.metrics[name] for row in rows if name in row.metrics]
    return sum(known) / len(known) if known else None


def _own(row: RoundRow) -> list[str]:
    return [name for name in row.metrics if name.startswith(OWN)]


def _of_a_round(row: RoundRow) -> list[str]:
    return [
        f"clipping norm {number(row.clipping_norm)}",
        f"nodes {row.finished}, dropped {row.dropped}",
        f"epsilon {number(row.epsilon, 2, missing='none')}",
    ]


def _of_steps(rows: Sequence[RoundRow]) -> list[str]:
    # A step without fresh completions has a rate of 0 and repeats the figures of another.
    tokens = sum(row.metrics["tokens"] for row in rows if row.metrics.get("tokens_per_second"))
    seconds = sum(row.seconds.get(STEP, 0.0) for row in rows)
    return [
        f"entropy {number(mean(rows, 'entropy'))}",
        f"truncated {number(mean(rows, 'truncated'), 2)}",
        f"zero signal {number(mean(rows, 'zero_signal'), 2)}",
        f"{tokens / max(seconds, 1e-9):.0f} tokens/s",
    ]


def _last_known(rows: Sequence[RoundRow]) -> float | None:
    """Divergence from the start as it was last measured."""
    return next((row.kl_base for row in reversed(rows) if row.kl_base is not None), None)


def _held_out(row: RoundRow) -> list[str]:
    if row.sampled is None and row.greedy is None:
        return []
    words = f"held-out {number(row.sampled)} sampled, {number(row.greedy)} greedy"
    return [words + (f" ({by_words(row.held_out_by)})" if row.held_out_by else "")]


def by_words(by: Mapping[str, Mapping[str, float]]) -> str:
    """Sampled accuracy of each value, or of the worst where there are many: the total hides who is
    forgotten.
    """
    worst = sorted(by, key=lambda value: by[value]["sampled"])[:MOST_VALUES]
    shown = by if len(by) <= MOST_VALUES else worst
    words = ", ".join(f"{value} {number(by[value]['sampled'], 2)}" for value in shown)
    return words if shown is by else f"lowest: {words}"
