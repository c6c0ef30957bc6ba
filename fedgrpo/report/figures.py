"""The figures of a run: one table, which console, picture and page read.

A row has some of them, and only those are shown, so a federation and training alone need no views
of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from fedgrpo.report.records import RoundRow
from fedgrpo.settings import METRICS, OWN


@dataclass(frozen=True)
class Figure:
    """Something measured.

    Attributes
    ----------
    label, meaning, digits:
        How a console shows it; without a meaning it does not.
    read:
        Its value in a row. None where it was not measured.
    panel, curve:
        Where a picture shows it, and under which label.
    """

    label: str
    meaning: str
    read: Callable[[RoundRow], float | None]
    panel: str = ""
    curve: str = ""
    digits: int = 3


class Series(NamedTuple):
    """The rounds in which a figure was measured, and its values."""

    at: list[float]
    values: list[float]


def metric(name: str) -> Callable[[RoundRow], float | None]:
    """Read a metric by name."""
    return partial(_metric, name)


def _metric(name: str, row: RoundRow) -> float | None:
    return row.metrics.get(name)


def _held_out(group: str, name: str, way: str, row: RoundRow) -> float | None:
    found: Mapping[str, Mapping[str, float]] = getattr(row, group)
    return found.get(name, {}).get(way)


def _solved(k: str, row: RoundRow) -> float | None:
    return row.pass_at.get(k)


def _dropped(row: RoundRow) -> float | None:
    return row.dropped if row.round else None


MEASURED = (
    Figure(
        "Held-out, sampled",
        "held-out prompts, sampled answers",
        attrgetter("sampled"),
        "learning",
        "held-out, sampled",
    ),
    Figure(
        "Held-out, greedy",
        "held-out prompts, likeliest answers",
        attrgetter("greedy"),
        "learning",
        "held-out, greedy",
    ),
    Figure(
        "KL to the start",
        "nats a token, held-out prompts",
        attrgetter("kl_base"),
        "divergence",
        "held-out, from the start",
    ),
)
"""On held-out prompts, whoever trains."""

TOLD = {
    name: Figure(m.label, m.meaning, metric(name), m.panel, m.curve, m.digits)
    for name, m in METRICS.items()
}
"""What the clients of a federation tell."""

FEDERATED = (
    Figure(
        "Clipping norm",
        "limit of one contribution",
        attrgetter("clipping_norm"),
        "norms",
        "clipping norm",
    ),
    Figure("Update norm", "", attrgetter("update_norm"), "norms", "aggregated update"),
    Figure("Dropped nodes", "lost in the last round", _dropped, digits=0),
    Figure("Epsilon", "privacy spent so far", attrgetter("epsilon"), digits=2),
)

STEPS = {
    "reward": Figure(
        "Reward", "in training", metric("reward"), "learning", METRICS["reward"].curve
    ),
    "entropy": Figure(
        "Entropy", "nats a token, in training", metric("entropy"), "entropy", "in training"
    ),
    "kl": Figure(
        "KL in training", "nats a token, from the start", metric("kl"), "divergence", "in training"
    ),
    "grad_norm": Figure("Gradient norm", "before clipping", metric("grad_norm")),
    "length": Figure(
        "Completion length", "tokens", metric("length"), "length", "mean length", digits=1
    ),
    "truncated": Figure(
        "Completions cut", "share that reached the limit", metric("truncated"), "shares", "cut"
    ),
    "zero_signal": Figure(
        "Without signal",
        "share of groups with one reward",
        metric("zero_signal"),
        "shares",
        "groups without signal",
    ),
    "tokens_per_second": Figure(
        "Speed", "sampled tokens a second", metric("tokens_per_second"), digits=0
    ),
}
"""What a step of training alone tells."""


def figures(rows: Sequence[RoundRow]) -> list[Figure]:
    """Every figure that these rows may have, in the order of a console."""
    alone = bool(rows) and rows[-1].alone
    told = dict(STEPS if alone else TOLD)
    first = told.pop("reward")
    own = [
        Figure(name, "your own, in training", metric(OWN + name), "own", name)
        for name in own_names(rows)
    ]
    return [first, *MEASURED, *told.values(), *own, *(() if alone else FEDERATED)]


def own_names(rows: Sequence[RoundRow]) -> list[str]:
    """Metrics of users' own that these rows tell, in their order."""
    keys = dict.fromkeys(key for row in rows for key in row.metrics)
    return [key.removeprefix(OWN) for key in keys if key.startswith(OWN)]


def of_panel(rows: Sequence[RoundRow], panel: str) -> list[tuple[Figure, Series]]:
    """The figures of a picture's panel, as far as there are values."""
    found = [(figure, series(rows, figure.read)) for figure in figures(rows)]
    return [(figure, line) for figure, line in found if figure.panel == panel and line.values]


def series(rows: Sequence[RoundRow], read: Callable[[RoundRow], float | None]) -> Series:
    """Where a figure was measured, and what it was."""
    points = [(float(row.round), value) for row in rows if (value := read(row)) is not None]
    return Series([at for at, _ in points], [value for _, value in points])


def by_name(rows: Sequence[RoundRow], group: str, way: str = "sampled") -> Mapping[str, Series]:
    """Held-out figures of each reward function, or of each group of prompts.

    Parameters
    ----------
    rows:
        Of a run.
    group:
        ``held_out_rewards`` or ``held_out_by``.
    way:
        ``sampled`` or ``greedy``.
    """
    names = dict.fromkeys(name for row in rows for name in getattr(row, group))
    found = {name: series(rows, partial(_held_out, group, name, way)) for name in names}
    return {name: line for name, line in found.items() if line.values}


def solved_within(rows: Sequence[RoundRow]) -> Mapping[str, Series]:
    """Share of held-out prompts that one of k completions solves, as ``pass@k``, before and
    after.
    """
    budgets = dict.fromkeys(k for row in rows for k in row.pass_at)
    return {f"pass@{k}": series(rows, partial(_solved, k)) for k in budgets}


def lowest(found: Mapping[str, Series], most: int) -> Mapping[str, Series]:
    """Those that are lowest in the end, at most so many, in their order: who is left behind."""
    kept = sorted(found, key=lambda name: found[name].values[-1])[:most]
    return {name: line for name, line in found.items() if name in kept}


def rewards_in_training(rows: Sequence[RoundRow]) -> Mapping[str, Series]:
    """Each reward function's mean over the completions of a step of training alone."""
    keys = dict.fromkeys(key for row in rows for key in row.metrics if key.startswith("rewards/"))
    return {key.removeprefix("rewards/"): series(rows, metric(key)) for key in keys}
