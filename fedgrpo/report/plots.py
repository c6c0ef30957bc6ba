"""The picture of a run: what it learnt, what privacy it spent, how it moved, who took part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedgrpo.ground import run_files
from fedgrpo.ground.errors import RunError
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.report.records import PHASES, RoundRow, Summary
from fedgrpo.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
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
from fedgrpo.settings import METRICS
from fedgrpo.settings.protocols import PROTOCOLS

# No run has the stages of two protocols.
PHASE_COLOURS = {"train": BLUE, "aggregate": RED, "evaluate": PURPLE} | {
    phase.name: colour
    for protocol in PROTOCOLS.values()
    for phase, colour in zip(protocol.phases, cycle((SKY, GREEN, ORANGE)))
}

SMALL_KL = 1e-3
MANY_ROUNDS = 60


def plot_run(run_dir: Path) -> Path:
    """Draw ``report.png`` (1600 x 1000 pixels) from a run's rows, and its summary if it has one.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    RunError
        The run has no finished round, or a row cannot be read.
    """
    rows = read_rows(run_dir)
    if not rows:
        raise RunError(
            f"{run_dir / run_files.METRICS} has no finished round to draw",
            cure="wait for the first round, or check the run directory",
        )
    return save_picture(draw(rows, read_summary(run_dir)), run_dir / run_files.REPORT)


def draw(rows: Sequence[RoundRow], summary: Summary | None) -> Figure:
    """Draw the four panels of a run on a figure of their own, without any global state."""
    figure, grid = new_figure()
    headline(figure, "Federated GRPO", rows[-1].round, "round", _outcome(summary))
    _learning(figure.add_subplot(grid[0, 0]), rows)
    _privacy(figure.add_subplot(grid[0, 1]), rows)
    below = (*pair(figure, grid[1, 0]), *pair(figure, grid[1, 1]))
    for axes, panel in zip(below, (_divergence, _norms, _nodes, _time), strict=True):
        panel(axes, rows)
    return figure


def _outcome(summary: Summary | None) -> list[str]:
    if summary is None:
        return []
    return [
        _promise(summary),
        summary.robust.words.replace(", ", ",\n", 1),
        f"{summary.dropped} node dropouts",
        f"{summary.wall_s / 60:.1f} min, {summary.overhead_share:.0%} overhead",
    ]


def _promise(summary: Summary) -> str:
    """Epsilon against the adversary that counts, and against a member of the committee."""
    if not summary.privacy:
        return "no differential privacy"
    first, *others = (held.epsilon for held in summary.privacy)
    worse = f" ({max(others):.2f} for a member)" if others and max(others) > first else ""
    return f"epsilon {first:.2f}{worse}"


def _learning(axes: Axes, rows: Sequence[RoundRow]) -> None:
    _told(axes, rows, "learning", (GREY, GREEN, PURPLE), width=1.0)
    sampled = _line(axes, rows, lambda row: row.sampled, "held-out, sampled", BLUE)
    greedy = _line(axes, rows, lambda row: row.greedy, "held-out, greedy", ORANGE, marker="s")
    if sampled:
        dashes = (0, (4, 3))
        axes.axhline(sampled[0], color=BLUE, linewidth=0.8, linestyle=dashes, label="start")
    _shade_skipped(axes, rows)
    room_above(axes, 0.25)
    _dress(axes, rows, _learnt(sampled, greedy))
    legend(axes, loc="upper left", ncols=3)


def _learnt(sampled: Sequence[float], greedy: Sequence[float]) -> str:
    changes = [
        f"{name} {values[0]:.2f} → {values[-1]:.2f}"
        for name, values in (("sampled", sampled), ("greedy", greedy))
        if len(values) > 1
    ]
    return "Held-out accuracy" + (f": {', '.join(changes)}" if changes else " and reward")


def _privacy(axes: Axes, rows: Sequence[RoundRow]) -> None:
    spent = _line(axes, rows, lambda row: row.epsilon, "", PURPLE, marker="", width=2.0)
    if not spent:
        words = "no differential privacy"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=GREY, fontsize=13)
        _dress(axes, rows, "Privacy spent")
        axes.set(xticks=[], yticks=[], xlabel="")
        return
    at = [row.round for row in rows if row.epsilon is not None]
    axes.fill_between(at, spent, color=PURPLE, alpha=0.15, linewidth=0)
    axes.annotate(
        f"{spent[-1]:.2f}",
        (at[-1], spent[-1]),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        fontweight="bold",
        color=INK,
    )
    axes.set_ylim(0, max(spent) * 1.18 or 1.0)
    against = "all but the committee" if any(row.members for row in rows) else "the worst adversary"
    _dress(axes, rows, f"Privacy spent so far: epsilon against {against}")


def _divergence(axes: Axes, rows: Sequence[RoundRow]) -> None:
    values = [
        *_told(axes, rows, "divergence", (GREEN, SKY, PURPLE)),
        *_line(axes, rows, lambda row: row.kl_base, "global from start", RED),
    ]
    # One round moves a policy far less than all of them; below the threshold the scale is linear,
    # since privacy noise may report a small KL below zero.
    axes.set_yscale("symlog", linthresh=SMALL_KL)
    lowest, highest = min([*values, -SMALL_KL / 5]), max([*values, SMALL_KL])
    axes.set_ylim(lowest, 2 * highest)
    _dress(axes, rows, "KL, nats (log scale)", last=False)
    legend(axes)


def _norms(axes: Axes, rows: Sequence[RoundRow]) -> None:
    trained = [row for row in rows if row.round > 0]
    _line(axes, trained, lambda row: row.clipping_norm, "clipping norm", INK, marker="")
    _line(axes, rows, lambda row: row.update_norm, "aggregated update", SKY, marker="")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    _dress(axes, rows, "L2 norms")
    legend(axes)


def _nodes(axes: Axes, rows: Sequence[RoundRow]) -> None:
    trained = [row for row in rows if row.round > 0]
    finished, dropped = [row.finished for row in trained], [row.dropped for row in trained]
    _stack(axes, trained, [("finished", GREEN, finished), ("dropped", RED, dropped)])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _dress(axes, rows, "Nodes", last=False)
    legend(axes)


def _time(axes: Axes, rows: Sequence[RoundRow]) -> None:
    timed = [phase for phase in PHASES if any(phase in row.seconds for row in rows)]
    spent = {phase: [row.seconds.get(phase, 0.0) for row in rows] for phase in timed}
    _stack(axes, rows, [(phase, PHASE_COLOURS[phase], spent[phase]) for phase in timed])
    _dress(axes, rows, "Time, s")
    legend(axes)


def _stack(
    axes: Axes, rows: Sequence[RoundRow], layers: Sequence[tuple[str, str, Sequence[float]]]
) -> None:
    at, bottom = [row.round for row in rows], [0.0] * len(rows)
    width = 0.8 if len(rows) <= MANY_ROUNDS else 1.0  # Gaps of less than a pixel flicker.
    for label, colour, heights in layers:
        if not any(heights):
            continue
        axes.bar(at, heights, bottom=bottom, color=colour, label=label, width=width, linewidth=0)
        bottom = [low + more for low, more in zip(bottom, heights, strict=True)]
    axes.set_ylim(0, (max(bottom, default=0.0) or 1.0) * 1.05)


def _told(
    axes: Axes, rows: Sequence[RoundRow], panel: str, colours: Sequence[str], width: float = 1.6
) -> list[float]:
    """Draw the metrics that belong to a panel, and return their values."""
    named = [(name, metric.curve) for name, metric in METRICS.items() if metric.panel == panel]
    values: list[float] = []
    for (name, label), colour in zip(named, cycle(colours), strict=False):
        told = partial(_metric, name)
        values += _line(axes, rows, told, label, colour, marker="", width=width)
    return values


def _metric(name: str, row: RoundRow) -> float | None:
    return row.metrics.get(name)


def _line(
    axes: Axes,
    rows: Sequence[RoundRow],
    figure: Callable[[RoundRow], float | None],
    label: str,
    colour: str,
    *,
    marker: str = "o",
    width: float = 1.6,
) -> list[float]:
    """Draw the rounds in which a figure was measured, and return its values."""
    points = [(row.round, value) for row in rows if (value := figure(row)) is not None]
    values = [value for _, value in points]
    if points:
        rounds = [at for at, _ in points]
        seen = marker or ("o" if len(points) == 1 else "")  # A line through one point is invisible.
        axes.plot(
            rounds, values, color=colour, label=label, marker=seen, linewidth=width, markersize=4.5
        )
    return values


def _shade_skipped(axes: Axes, rows: Sequence[RoundRow]) -> None:
    skipped = [row.round for row in rows if row.round > 0 and not row.applied]
    for index, at in enumerate(skipped):
        label = "" if index else "round without effect"
        axes.axvspan(at - 0.5, at + 0.5, color=PALE, linewidth=0, zorder=0, label=label)


def _dress(axes: Axes, rows: Sequence[RoundRow], title: str, *, last: bool = True) -> None:
    axes.set_xlim(-0.5, max(rows[-1].round, 1) + 0.5)
    dress(axes, title, "round" if last else "")
