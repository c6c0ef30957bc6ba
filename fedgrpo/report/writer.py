"""Writing a run directory so that a crash at any instant leaves it readable."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedgrpo.ground.files import lines, owner_only, replace_file
from fedgrpo.ground.records import Sample, from_json, to_json
from fedgrpo.ground.run_files import COMPLETIONS, DROPPED, METRICS, STATUS, SUMMARY
from fedgrpo.report.reader import read_rows, read_status
from fedgrpo.report.records import DroppedNode, RoundRow, SampleRow, State, Status, Summary

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
        self._samples = Rows(run_dir / COMPLETIONS, private=True)
        self._dropped = Rows(run_dir / DROPPED, private=True)
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

    def samples(self, round: int, samples: Iterable[Sample]) -> None:
        """Keep held-out completions of a round, in place of those of an earlier attempt. Call it
        before :meth:`row`, which says that the round is over.
        """
        found = [to_json(SampleRow(round=round, **vars(sample))) for sample in samples]
        self._samples.keep(lambda line: from_json(SampleRow, line).round != round)
        if found:
            self._samples.append(found)
            self._samples.sync()

    def dropped(self, round: int, reasons: Mapping[int, str]) -> None:
        """Note which nodes a round was closed without, by Flower's ids, and why.

        It tells the server's own people no more than its log does. A round that is done again may
        note the same ones again.
        """
        found = [
            to_json(DroppedNode(round, str(node), reason, self._clock()))
            for node, reason in sorted(reasons.items())
        ]
        if found:
            self._dropped.append(found)

    def rows(self) -> list[RoundRow]:
        """Read the finished rounds, oldest first."""
        return read_rows(self.run_dir)

    def truncate(self, last_round: int) -> None:
        """Forget every row after ``last_round``: a resumed run does those rounds again.

        Completions of the round that follows stay: its row may be about to be written again.
        """
        self._rows.keep(lambda line: from_json(RoundRow, line).round <= last_round)
        self._samples.keep(lambda line: from_json(SampleRow, line).round <= last_round + 1)

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


@dataclass(frozen=True)
class Rows:
    """A file of a line a record, which grows while others read it.

    Attributes
    ----------
    path:
        Made by the first row.
    private:
        Whether nobody but its owner may read it.
    """

    path: Path
    private: bool = False

    def append(self, rows: Sequence[str]) -> None:
        """Add rows, in place of what a crash left after the last line break."""
        with open(self.path, "ab+", opener=owner_only if self.private else None) as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
            file.write("".join(f"{row}\n" for row in rows).encode())

    def sync(self) -> None:
        """Bring every row to disk."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget every other row."""
        found = lines(self.path)
        if self.path.exists() and (kept := [line for line in found if wanted(line)]) != found:
            content = "".join(f"{line}\n" for line in kept).encode()
            replace_file(self.path, content, mode=0o600 if self.private else 0o666)
