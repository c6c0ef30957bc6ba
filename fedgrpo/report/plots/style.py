"""How every picture looks: its size and panels, colours, axes, legends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.ticker import MaxNLocator

from fedgrpo.ground.files import replace_file

# Okabe and Ito's palette: told apart with every common colour blindness, and in grey by lightness.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE = "#56B4E9", "#CC79A7"
INK, GREY, PALE = "#222222", "#767676", "#E8E8E8"

INCHES, DPI = (10.0, 6.25), 160
MANY_POINTS, MANY_ROUNDS = 100, 60
LEGEND: dict[str, Any] = {
    "fontsize": 8,
    "frameon": False,
    "labelcolor": INK,
    "handlelength": 0.9,
    "handletextpad": 0.35,
    "columnspacing": 0.6,
}


def new_figure() -> tuple[Figure, GridSpec]:
    """Begin a picture of 1600 x 1000 pixels, without any global state.

    Returns
    -------
    tuple[Figure, GridSpec]
        The figure, and places for two by two panels below a headline.
    """
    figure = Figure(figsize=INCHES, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 2, left=0.07, right=0.975, top=0.84, bottom=0.075, hspace=0.4, wspace=0.16
    )
    return figure, grid


def headline(figure: Figure, kind: str, count: int, unit: str, parts: Sequence[str]) -> None:
    """Write what a picture shows, and below it the run's outcome; without parts there is none."""
    title = f"{kind}, {count} {unit}{'' if count == 1 else 's'}"
    figure.text(0.07, 0.945, title, fontsize=15, fontweight="bold", color=INK)
    said = "   |   ".join(parts) or "Not finished yet"
    figure.text(0.07, 0.91, said, fontsize=10, color=GREY)


def pair(figure: Figure | SubFigure, place: SubplotSpec) -> tuple[Axes, Axes]:
    """Make two panels one above the other: two scales on one pair of axes mislead."""
    halves = place.subgridspec(2, 1, hspace=0.5)
    return figure.add_subplot(halves[0]), figure.add_subplot(halves[1])


def room_above(axes: Axes, share: float) -> None:
    """Leave a share of the height for the legend."""
    low, high = axes.get_ylim()
    low = min(0.0, low)
    axes.set_ylim(low, high + share * (high - low))


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    picture = BytesIO()
    figure.savefig(picture, format="png")
    replace_file(path, picture.getvalue())
    return path


def dress(axes: Axes, title: str, x_label: str = "") -> None:
    """Give axes their title and the house's plain look; without ``x_label`` another one's below
    has the ticks.
    """
    axes.set_title(title, fontsize=10, loc="left", color=INK, pad=6)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.tick_params(labelsize=9, colors=GREY, length=0, labelbottom=bool(x_label))
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    if x_label:
        axes.set_xlabel(x_label, fontsize=9, color=GREY)


def legend(axes: Axes, **place: Any) -> None:
    """Put the legend beside the title, where it hides nothing, or at ``place``."""
    labels = axes.get_legend_handles_labels()[1]
    beside = {
        "loc": "lower right",
        "bbox_to_anchor": (1.015, 0.97),
        "borderpad": 0.3,
        "ncols": len(labels),
    }
    if labels:
        axes.legend(**LEGEND, **(place or beside))


def curve(
    axes: Axes,
    line: tuple[Sequence[float], Sequence[float]],
    colour: str,
    label: str = "",
    *,
    marker: str = "",
    width: float = 1.6,
    faint: bool = True,
) -> None:
    """Draw a line; one of many points as its means over windows, and faintly as it is."""
    if not line[0]:
        return
    # A batch of completions says little by itself, and a line through one point is invisible.
    if len(line[0]) > MANY_POINTS:
        if faint:
            axes.plot(*line, color=colour, linewidth=0.6, alpha=0.35)
        line = smoothed(*line)
    seen = marker or ("o" if len(line[0]) == 1 else "")
    axes.plot(*line, color=colour, label=label, marker=seen, linewidth=width, markersize=4.5)


def smoothed(at: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means over consecutive windows, each drawn at its middle."""
    width = max(1, math.ceil(2 * len(values) / MANY_POINTS))
    starts = range(0, len(values), width)
    return (
        [fmean(at[start : start + width]) for start in starts],
        [fmean(values[start : start + width]) for start in starts],
    )


def stack(
    axes: Axes, at: Sequence[int], layers: Sequence[tuple[str, str, Sequence[float]]]
) -> None:
    """Draw bars on bars: label, colour and heights of each layer, those without any left out."""
    bottom = [0.0] * len(at)
    for label, colour, heights in layers:
        if not any(heights):
            continue
        top = [low + more for low, more in zip(bottom, heights, strict=True)]
        look: dict[str, Any] = {"color": colour, "label": label, "linewidth": 0}
        if len(at) > MANY_ROUNDS:  # Gaps of less than a pixel flicker.
            axes.fill_between(at, bottom, top, step="mid", **look)
        else:
            axes.bar(at, heights, bottom=bottom, width=0.8, **look)
        bottom = top
    axes.set_ylim(0, (max(bottom, default=0.0) or 1.0) * 1.05)
