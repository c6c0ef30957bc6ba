"""The picture of a run: two large panels and four small ones, of what its rows have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from matplotlib.figure import Figure

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.run_files import METRICS, REPORT
from fedgrpo.report.plots.panels import LARGE, SMALL, learning
from fedgrpo.report.plots.style import headline, new_figure, pair, save_picture
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.report.records import RoundRow, Summary
from fedgrpo.report.wording import duration, unit_of


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
            f"{run_dir / METRICS} has no finished round to draw",
            cure="wait for the first round, or check the run directory",
        )
    return save_picture(draw(rows, read_summary(run_dir)), run_dir / REPORT)


def draw(rows: Sequence[RoundRow], summary: Summary | None) -> Figure:
    """Draw the panels of a run on a figure of their own, without any global state."""
    figure, grid = new_figure()
    kind = "GRPO without federation" if rows[-1].alone else "Federated GRPO"
    headline(figure, kind, rows[-1].round, unit_of(rows), _outcome(summary))
    learning(figure.add_subplot(grid[0, 0]), rows)
    next(panel for panel in LARGE if panel.has(rows)).draw(figure.add_subplot(grid[0, 1]), rows)
    below = (*pair(figure, grid[1, 0]), *pair(figure, grid[1, 1]))
    fitting = islice((panel for panel in SMALL if panel.has(rows)), len(below))
    for place, (axes, panel) in enumerate(zip(below, fitting, strict=False)):
        panel.draw(axes, rows)
        upper = place % 2 == 0
        axes.tick_params(labelbottom=not upper)
        axes.set_xlabel("" if upper else axes.get_xlabel())
    return figure


def _outcome(summary: Summary | None) -> list[str]:
    if summary is None:
        return []
    if alone := summary.training:
        return [
            "no privacy",
            f"best held-out {alone.best:.2f} after step {alone.best_step}",
            f"{alone.completions} completions",
            f"{alone.tokens_per_second:.0f} tokens/s",
            duration(summary.wall_s),
        ]
    robust = summary.robust
    return [
        _promise(summary),
        *([robust.words.partition(", ")[0]] if robust else []),
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
