"""Charts as SVG inside a page: text stays text, and nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedgrpo.report.page.charts import Chart, Line
from fedgrpo.report.plots.panels import nodes, time
from fedgrpo.report.plots.style import GREY, PALE
from fedgrpo.report.records import RoundRow

SIZE = (5.2, 2.6)
LOOK: Any = {"svg.fonttype": "none", "svg.hashsalt": "fedgrpo", "font.family": "sans-serif"}


def draw_chart(chart: Chart) -> str:
    """Draw curves; the title and the legend are the page's."""
    figure, axes = _axes()
    for line in chart.lines:
        _line(axes, line)
    low, high = axes.get_ylim()
    if low >= 0:
        axes.set_ylim(0, 1.04 * high)
    axes.set_xlabel(chart.unit, fontsize=9, color=GREY)
    return _svg(figure)


def _line(axes: Axes, line: Line) -> None:
    at, values = line.points
    marker = "o" if line.dots or len(at) == 1 else ""
    axes.plot(
        at, values, color=line.colour, linestyle=line.dash, marker=marker, ms=4, linewidth=1.8
    )
    if line.band:
        low = [value - spread for value, spread in zip(values, line.band, strict=True)]
        high = [value + spread for value, spread in zip(values, line.band, strict=True)]
        axes.fill_between(at, low, high, color=line.colour, alpha=0.15, linewidth=0)


def draw_phases(rows: Sequence[RoundRow]) -> str:
    """Draw where the time of each round went."""
    figure, axes = _axes()
    time(axes, rows)
    axes.set_title("", loc="left")
    return _svg(figure)


def draw_cohort(rows: Sequence[RoundRow]) -> str:
    """Draw how many clients finished each round, and how many were lost."""
    figure, axes = _axes()
    nodes(axes, rows)
    axes.set_title("", loc="left")
    return _svg(figure)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, facecolor="none")
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.09, 0.19, 0.895, 0.7))
    axes.tick_params(labelsize=9, colors=GREY, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.patch.set_alpha(0)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an element that takes the width of its place."""
    text = StringIO()
    with mpl.rc_context(LOOK):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    element = found[found.index("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", element, count=1)
