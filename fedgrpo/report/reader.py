"""Reading a run directory, also while another process writes it."""

from __future__ import annotations

from pathlib import Path

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.records import from_json
from fedgrpo.ground.run_files import METRICS, STATUS, SUMMARY
from fedgrpo.report.records import RoundRow, Status, Summary


def read_rows(run_dir: Path) -> list[RoundRow]:
    """Read the finished rounds, oldest first. A run that has not begun has none.

    A row counts once its newline is written: a last line without one was torn by a crash, or is
    being written.

    Raises
    ------
    RunError
        A whole line is no valid row. Names the line.
    """
    path = run_dir / METRICS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_row(path, number, line) for number, line in enumerate(lines, start=1)]


def read_status(run_dir: Path) -> Status | None:
    """Read where the run is, or None if it has not said so yet."""
    path = run_dir / STATUS
    return from_json(Status, path.read_text("utf-8")) if path.exists() else None


def read_summary(run_dir: Path) -> Summary | None:
    """Read the outcome, or None if the run has not finished."""
    path = run_dir / SUMMARY
    return from_json(Summary, path.read_text("utf-8")) if path.exists() else None


def _row(path: Path, number: int, line: bytes) -> RoundRow:
    try:
        return from_json(RoundRow, line.decode("utf-8", errors="replace"))
    except RunError as error:
        raise RunError(f"{path}, line {number}: {error.problem}", cure=error.cure) from None
