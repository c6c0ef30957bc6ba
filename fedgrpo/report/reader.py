"""Reading a run directory, also while another process writes it."""

from __future__ import annotations

from pathlib import Path

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import lines
from fedgrpo.ground.records import from_json
from fedgrpo.ground.run_files import METRICS, STATUS, SUMMARY
from fedgrpo.report.records import RoundRow, Status, Summary


def read_rows(run_dir: Path) -> list[RoundRow]:
    """Read the finished rounds, oldest first. A run that has not begun has none.

    Raises
    ------
    RunError
        A whole line is no valid row. Names the line.
    """
    path = run_dir / METRICS
    return [_row(path, number, line) for number, line in enumerate(lines(path), start=1)]


def read_status(run_dir: Path) -> Status | None:
    """Read where the run is, or None if it has not said so yet."""
    path = run_dir / STATUS
    return from_json(Status, path.read_text("utf-8")) if path.exists() else None


def read_summary(run_dir: Path) -> Summary | None:
    """Read the outcome, or None if the run has not finished."""
    path = run_dir / SUMMARY
    return from_json(Summary, path.read_text("utf-8")) if path.exists() else None


def _row(path: Path, number: int, line: str) -> RoundRow:
    try:
        return from_json(RoundRow, line)
    except RunError as error:
        raise RunError(f"{path}, line {number}: {error.problem}", cure=error.cure) from None
