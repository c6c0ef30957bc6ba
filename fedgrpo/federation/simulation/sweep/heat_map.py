"""A sweep at one look: cells by colour, with their means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedgrpo.federation.simulation.sweep.plan import Sweep
from fedgrpo.ground.files import replace_file


def draw(
    sweep: Sweep, found: Mapping[tuple[str, str], Sequence[float]], figure: str, path: Path
) -> None:
    """Draw means over seeds; a cell of one seed is marked, one without a run is empty."""
    known = {place: [v for v in each if math.isfinite(v)] for place, each in found.items()}
    means = np.array(
        [
            [statistics.fmean(known[row, column] or [np.nan]) for column in sweep.columns]
            for row in sweep.rows
        ]
    )
    shape = (2.6 + 1.25 * len(sweep.columns), 1.6 + 0.42 * len(sweep.rows))
    picture = Figure(figsize=shape, dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.add_subplot()
    image = axes.imshow(means, aspect="auto", cmap="cividis")
    axes.set_xticks(range(len(sweep.columns)), sweep.columns, rotation=20, ha="right", fontsize=8)
    axes.set_yticks(range(len(sweep.rows)), sweep.rows, fontsize=8)
    axes.set_title(f"{figure}: mean over seeds, * one seed", fontsize=9, loc="left")
    middle = float(np.nanmean(means)) if np.isfinite(means).any() else 0.0
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            once = len(known[sweep.rows[row], sweep.columns[column]]) == 1
            colour = "white" if mean < middle else "black"
            text = f"{mean:.3f}{'*' if once else ''}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    picture.colorbar(image, ax=axes, shrink=0.9)
    buffer = BytesIO()
    picture.savefig(buffer, format="png")
    replace_file(path, buffer.getvalue())
