"""The picture of training without a federation: what it learnt, and how healthy it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedgrpo.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    dress,
    headline,
    legend,
    new_figure,
    pair,
    room_above,
    save_picture,
)
from fedgrpo.report.training import (
    PICTURE,
    Row,
    Training,
    TrainingSummary,
    best_evaluation,
    read_training,
)
from fedgrpo.report.wording import duration, short_name

FUNCTION_COLOURS = (BLUE, GREEN, PURPLE, RED, SKY, ORANGE)
POINTS = 50
"""Windows that a run is smoothed into: a batch of completions says little by itself."""


def plot_training(run_dir: Path) -> Path:
    """Draw ``training.png`` (1600 x 1000 pixels) from a run's rows, and its summary if it has one.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    RunError
        If nothing was evaluated there yet, or a row cannot be read.
    """
    return save_picture(draw(read_training(run_dir)), run_dir / PICTURE)


def draw(training: Training) -> Figure:
    """Draw the panels of a run on a figure of their own, without any global state."""
    figure, grid = new_figure()
    outcome = _outcome(training.summary)
    headline(figure, "GRPO without federation", len(training.steps), "step", outcome)
    _learning(figure.add_subplot(grid[0, 0]), training)
    _functions(figure.add_subplot(grid[0, 1]), training)
    upper, lower = pair(figure, grid[1, 0])
    _series(upper, training, "entropy", GREEN, "Entropy, nats a token")
    _drift(lower, training)
    upper, lower = pair(figure, grid[1, 1])
    _series(upper, training, "length", SKY, "Completion length, tokens")
    _shares(lower, training)
    last = max(training.evaluations[-1].step, len(training.steps), 1)
    for axes in figure.axes:
        axes.set_xlim(-0.02 * last, 1.02 * last)  # Or marks at the ends are cut in half.
    return figure


def _outcome(summary: TrainingSummary | None) -> list[str]:
    if summary is None:
        return []
    return [
        "no privacy",
        f"best held-out {summary.sampled.best:.2f} after step {summary.best_step}",
        f"{summary.completions} completions",
        f"{summary.tokens_per_second:.0f} tokens/s",
        duration(summary.seconds),
    ]


def _learning(axes: Axes, training: Training) -> None:
    at = [row.step for row in training.evaluations]
    sampled = [row.sampled for row in training.evaluations]
    greedy = [row.greedy for row in training.evaluations]
    rewards = _known(training.steps, "reward")
    axes.plot(*rewards, color=GREY, linewidth=0.6, alpha=0.35)
    axes.plot(*_smooth(*rewards), color=GREY, linewidth=1.2, label="in training")
    axes.plot(at, sampled, color=BLUE, marker="o", markersize=4.5, label="held-out, sampled")
    axes.plot(at, greedy, color=ORANGE, marker="s", markersize=4.5, label="held-out, greedy")
    best = best_evaluation(training.evaluations)
    axes.plot(best.step, best.sampled, "o", ms=10, mfc="none", mec=INK, label="best")
    room_above(axes, 0.2)
    changes = f"sampled {sampled[0]:.2f} → {sampled[-1]:.2f}, greedy {greedy[0]:.2f} → "
    dress(axes, f"Held-out reward: {changes}{greedy[-1]:.2f}", "step")
    legend(axes, loc="upper left", ncols=4)


def _functions(axes: Axes, training: Training) -> None:
    names = list(training.evaluations[0].sampled_rewards)
    for name, colour in zip(names, cycle(FUNCTION_COLOURS), strict=False):
        steps = [(row["step"], row["rewards"][name]) for row in training.steps]
        held = [(row.step, row.sampled_rewards[name]) for row in training.evaluations]
        axes.plot(*_smooth(*_pairs(steps)), color=colour, linewidth=1.4, label=short_name(name))
        axes.plot(*_pairs(held), "o", color=colour, markersize=4.5)
    room_above(axes, 0.2)
    dress(axes, "By reward function: in training (lines), held-out (dots)", "step")
    legend(axes, loc="upper left", ncols=3)


def _drift(axes: Axes, training: Training) -> None:
    axes.plot(*_smooth(*_known(training.steps, "kl")), color=GREY, label="in training")
    at = [row.step for row in training.evaluations]
    drift = [row.kl for row in training.evaluations]
    axes.plot(at, drift, color=RED, marker="o", markersize=4.5, label="held-out")
    axes.set_ylim(bottom=0)
    dress(axes, "KL to the start, nats a token", "step")
    legend(axes)


def _shares(axes: Axes, training: Training) -> None:
    for name, label, colour in (
        ("truncated", "completions cut", RED),
        ("zero_signal", "groups without signal", PURPLE),
    ):
        axes.plot(*_smooth(*_known(training.steps, name)), color=colour, label=label)
    axes.set_ylim(0, 1)
    dress(axes, "Shares", "step")
    legend(axes)


def _series(axes: Axes, training: Training, name: str, colour: str, title: str) -> None:
    at, values = _known(training.steps, name)
    axes.plot(at, values, color=colour, linewidth=0.6, alpha=0.35)
    axes.plot(*_smooth(at, values), color=colour, linewidth=1.6)
    axes.set_ylim(0, 1.1 * max([*values, 1e-3]))
    dress(axes, title)


def _known(steps: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    return _pairs([(row["step"], row[name]) for row in steps])


def _pairs(points: Sequence[tuple[float, float | None]]) -> tuple[list[float], list[float]]:
    """Steps and values, as far as there are values."""
    known = [(at, value) for at, value in points if value is not None]
    return [at for at, _ in known], [value for _, value in known]


def _smooth(at: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means over consecutive windows, each drawn at its middle."""
    width = max(1, math.ceil(len(values) / POINTS))
    starts = range(0, len(values), width)
    return (
        [_mean(at[start : start + width]) for start in starts],
        [_mean(values[start : start + width]) for start in starts],
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
