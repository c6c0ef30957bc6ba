"""Reading a run directory, also while another process writes it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import lines
from fedgrpo.ground.records import Record, from_json
from fedgrpo.ground.run_files import COMPLETIONS, DROPPED, METRICS, SNAPSHOT, STATUS, SUMMARY
from fedgrpo.report.records import DroppedNode, RoundRow, SampleRow, Status, Summary
from fedgrpo.settings import Settings
from fedgrpo.settings.snapshot import read_snapshot

R = TypeVar("R", bound=Record)

_UNREADABLE = (
    "bring the file back from a copy, or read the run with the version of fedgrpo that wrote it"
)


def read_rows(run_dir: Path) -> list[RoundRow]:
    """Read the finished rounds, oldest first. A run that has not begun has none.

    Raises
    ------
    RunError
        A whole line is no valid row. Names the line.
    """
    return _records(RoundRow, run_dir / METRICS)


def read_samples(run_dir: Path) -> list[SampleRow]:
    """Read the held-out completions that were kept, oldest first; raises as :func:`read_rows`."""
    return _records(SampleRow, run_dir / COMPLETIONS)


def read_dropped(run_dir: Path) -> list[DroppedNode]:
    """Read which nodes were dropped, oldest first."""
    return _records(DroppedNode, run_dir / DROPPED)


def read_status(run_dir: Path) -> Status | None:
    """Read where the run is, or None if it has not said so yet."""
    return _record(Status, run_dir / STATUS)


def read_summary(run_dir: Path) -> Summary | None:
    """Read the outcome, or None if the run has not finished."""
    return _record(Summary, run_dir / SUMMARY)


@dataclass(frozen=True)
class Run:
    """A run directory as it was read.

    Attributes
    ----------
    path:
        Absolute.
    rows, samples:
        Oldest first; at least one row.
    status, summary:
        None as long as there is none.
    settings:
        Without the ``run`` section; None where they were not noted, or by another version.
    """

    path: Path
    rows: list[RoundRow]
    samples: list[SampleRow]
    status: Status | None
    summary: Summary | None
    settings: Settings | None


def read_run(run_dir: Path) -> Run:
    """Read all of a run.

    Raises
    ------
    RunError
        There is none with a finished round, or something of it cannot be read.
    """
    rows = read_rows(run_dir) if run_dir.is_dir() else []
    if not rows:
        raise RunError(
            f"{run_dir} holds no run with a finished round",
            cure="check the path, or wait for the first round",
        )
    found = read_status(run_dir), read_summary(run_dir), _settings(run_dir / SNAPSHOT)
    return Run(run_dir.resolve(), rows, read_samples(run_dir), *found)


def _settings(path: Path) -> Settings | None:
    try:
        return read_snapshot(path)[1]
    except (OSError, ValueError, TypeError):
        return None


def _record(kind: type[R], path: Path) -> R | None:
    if not path.exists():
        return None
    try:
        return from_json(kind, path.read_text("utf-8"))
    except (RunError, UnicodeDecodeError) as error:
        told = error.problem if isinstance(error, RunError) else "not UTF-8"
        raise RunError(f"{path}: {told}", cure=_UNREADABLE) from None


def _records(kind: type[R], path: Path) -> list[R]:
    return [_row(kind, path, number, line) for number, line in enumerate(lines(path), start=1)]


def _row(kind: type[R], path: Path, number: int, line: str) -> R:
    try:
        return from_json(kind, line)
    except RunError as error:
        raise RunError(f"{path}, line {number}: {error.problem}", cure=_UNREADABLE) from None


class Watched:
    """Rows of a run that goes on: what is read once is not read again, unless the file was cut.

    Parameters
    ----------
    run_dir:
        Need not exist yet.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / METRICS
        self._kept: list[RoundRow] = []
        self._read: tuple[int, int] = 0, 0

    def rows(self) -> list[RoundRow]:
        """The finished rounds, oldest first; raises as :func:`read_rows`."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            inode, offset = os.fstat(file.fileno()).st_ino, self._read[1]
            if inode != self._read[0] or os.fstat(file.fileno()).st_size < offset:
                self._kept, offset = [], 0
            file.seek(offset)
            whole = file.read().rpartition(b"\n")
        for line in whole[0].decode().splitlines():
            self._kept.append(_row(RoundRow, self._path, len(self._kept) + 1, line))
        self._read = inode, offset + len(whole[0]) + len(whole[1])
        return list(self._kept)
