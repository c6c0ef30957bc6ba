"""What a sweep's runs came to: one line of CSV each, from which table and heat map are made."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedgrpo.federation.simulation.sweep.plan import Cell, Sweep
from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import replace_file

Line = dict[str, str]
"""A run: its label, its seed, and its figures as text."""

FIRST = ("row", "column", "seed", "settings", "problem")
"""Columns that are no figures."""
START = "_start"
"""Ends the name of a figure as it was before training."""


def read_results(path: Path) -> list[Line]:
    """Every line so far."""
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def write_results(path: Path, lines: Sequence[Line]) -> None:
    """Replace the file by these lines; a run that measured more than others has more columns."""
    names = dict.fromkeys([*FIRST, *(name for line in lines for name in line)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue().encode())


def line_of(cell: Cell, figures: Mapping[str, float | None], problem: str = "") -> Line:
    """Write a run's figures down."""
    named = dict(zip(FIRST, (*cell.key, problem), strict=True))
    return named | {name: "" if v is None else f"{v:.6g}" for name, v in figures.items()}


def key_of(line: Line) -> tuple[str, ...]:
    """See :attr:`Cell.key`."""
    return tuple(line[name] for name in FIRST[:4])


def values(sweep: Sweep, lines: Sequence[Line], figure: str) -> dict[tuple[str, str], list[float]]:
    """A figure of every cell, one a seed, in the order of seeds.

    Raises
    ------
    SettingsError
        If no run tells this figure.
    """
    done = {key_of(line): line for line in lines if not line["problem"]}
    known = [name for line in done.values() for name in line if name not in FIRST]
    if done and figure not in known:
        raise SettingsError(
            f"no run tells {figure!r}", cure=f"choose from {', '.join(dict.fromkeys(known))}"
        )
    found: dict[tuple[str, str], list[float]] = {}
    for cell in sweep.cells:
        text = done.get(cell.key, {}).get(figure, "")
        found.setdefault((cell.row, cell.column), []).append(float(text) if text else float("nan"))
    return found


def losses(sweep: Sweep, lines: Sequence[Line], figure: str) -> dict[tuple[str, str], list[float]]:
    """Share of the reference row's gain that each cell lost, paired by seed and column, in %."""
    after, before = values(sweep, lines, figure), values(sweep, lines, figure + START)
    lost = {}
    for row, column in after:
        whole = zip(after[sweep.reference, column], before[sweep.reference, column], strict=True)
        pairs = zip(after[row, column], whole, strict=True)
        lost[row, column] = [
            100 * (best - ours) / (best - start) if best != start else float("nan")
            for ours, (best, start) in pairs
        ]
    return lost


def table(sweep: Sweep, lines: Sequence[Line], figure: str = "sampled") -> str:
    """Markdown: mean over seeds, its standard error, and a mark where there is one seed only; with
    a reference row, behind it the share of its gain that is lost.
    """
    found = values(sweep, lines, figure)
    compared = sweep.reference and any(figure + START in line for line in lines)
    lost = losses(sweep, lines, figure) if compared else {}
    head = f"| {figure} | {' | '.join(column or 'mean' for column in sweep.columns)} |"
    made = [head, "|---" * (len(sweep.columns) + 1) + "|"]
    for row in sweep.rows:
        cells = []
        for column in sweep.columns:
            words = _words(found[row, column], 3)
            loss = _words(lost.get((row, column), []), 1)
            versus = lost and row != sweep.reference and loss != "-"
            cells.append(f"{words}, -{loss} %".replace("--", "+") if versus else words)
        made.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join([*made, "", "Mean and standard error over seeds; * one seed: a sketch."])


def _words(figures: Sequence[float], digits: int) -> str:
    known = [figure for figure in figures if math.isfinite(figure)]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.{digits}f}"
    if len(known) == 1:
        return f"{mean}*"
    error = statistics.stdev(known) / len(known) ** 0.5
    return f"{mean} ± {error:.{digits}f}"
