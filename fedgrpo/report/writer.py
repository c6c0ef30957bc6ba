"""Writing a run directory so that a crash at any instant leaves it readable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedgrpo.ground.files import replace_file
from fedgrpo.ground.records import from_json, to_json
from fedgrpo.ground.run_files import METRICS, STATUS, SUMMARY
from fedgrpo.report.reader import read_rows, read_status
from fedgrpo.report.records import RoundRow, State, Status, Summary
from fedgrpo.report.rows import Rows

WAITING = "waiting"
"""The phase before a round in which the server waits for nodes."""


class RunWriter:
    """The one writer of a run directory.

    Rows are appended and synced to disk one by one; every other file is replaced whole, so a
    reader sees the old text or the new one and never a part.

    Parameters
    ----------
    run_dir:
        Made if it does not exist. May hold an earlier, interrupted part of the same run.
    clock:
        Unix time in seconds.
    """

    def __init__(self, run_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.run_dir = run_dir
        self._clock = clock
        self._rows = Rows(run_dir / METRICS)
        run_dir.mkdir(parents=True, exist_ok=True)

    def phase(self, round: int, rounds: int, phase: str, detail: str = "") -> None:
        """Say where the run is.

        Parameters
        ----------
        round, rounds:
            Round under way (0 before training), and rounds in all.
        phase:
            :data:`WAITING` or one of :data:`fedgrpo.report.records.PHASES`.
        detail:
            A few words for the console, such as how many nodes have answered.
        """
        now, before = self._clock(), self._status()
        same = (before.state, before.round, before.phase) == (_state(phase), round, phase)
        self._write_status(
            Status(
                state=_state(phase),
                round=round,
                rounds=rounds,
                phase=phase,
                detail=detail,
                since=before.since if same else now,
                time=now,
                problem="",
                cure="",
            )
        )

    def row(self, row: RoundRow) -> None:
        """Append a finished round. It is on disk when this returns.

        Raises
        ------
        RunError
            A figure is NaN or infinite.
        """
        self._rows.append([to_json(row)])
        self._rows.sync()

    def rows(self) -> list[RoundRow]:
        """Read the finished rounds, oldest first."""
        return read_rows(self.run_dir)

    def truncate(self, last_round: int) -> None:
        """Forget every row after ``last_round``: a resumed run does those rounds again."""
        self._rows.keep(lambda line: from_json(RoundRow, line).round <= last_round)

    def summary(self, summary: Summary) -> None:
        """Write the outcome and set the state to finished."""
        replace_file(self.run_dir / SUMMARY, f"{to_json(summary)}\n".encode())
        self._end("finished", "", "")

    def fail(self, problem: str, cure: str) -> None:
        """Set the state to failed, with the cause and what the reader can do."""
        self._end("failed", problem, cure)

    def interrupt(self, problem: str, cure: str) -> None:
        """Set the state to interrupted: the run stopped on request and can be resumed."""
        self._end("interrupted", problem, cure)

    def _end(self, state: State, problem: str, cure: str) -> None:
        now = self._clock()
        self._write_status(
            replace(self._status(), state=state, time=now, problem=problem, cure=cure)
        )

    def _status(self) -> Status:
        return read_status(self.run_dir) or Status(
            state="waiting",
            round=0,
            rounds=0,
            phase="",
            detail="",
            since=self._clock(),
            time=self._clock(),
            problem="",
            cure="",
        )

    def _write_status(self, status: Status) -> None:
        replace_file(self.run_dir / STATUS, f"{to_json(status)}\n".encode())


def _state(phase: str) -> State:
    return "waiting" if phase == WAITING else "running"
