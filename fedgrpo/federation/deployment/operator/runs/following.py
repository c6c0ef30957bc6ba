"""A deployed run on the operator's console, with its sites by their names."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedgrpo.federation.deployment.log.codes import LOGGED
from fedgrpo.federation.deployment.operator.runs.present import SeenSite, present, waiting_line
from fedgrpo.federation.deployment.operator.runs.seen import by_name, names, seen_run
from fedgrpo.federation.deployment.operator.wish import Submitted, Wish
from fedgrpo.ground.errors import RunError, RunFailedError, RunInterruptedError
from fedgrpo.ground.run_files import SUMMARY
from fedgrpo.report.console import conclude, follow
from fedgrpo.report.reader import read_dropped, read_status

LOOK_S, AGAIN_S = 2.0, 300.0
"""How often the server is asked who is there, and after how long the same is said again."""


def follow_run(folder: Path, wish: Wish, rounds: int, needed: int, console: Console) -> None:
    """Show a run until it ends, then what it came to.

    Parameters
    ----------
    folder:
        Of the server.
    wish:
        What was asked for.
    rounds:
        In all.
    needed:
        Sites with which a round begins.
    console:
        Where to.

    Raises
    ------
    RunFailedError, RunInterruptedError
        If it failed, none of its rounds counted, or it was stopped.
    """
    watch, directory = _Watch(folder, wish, needed, console), Path(wish.directory)
    follow(directory, rounds, watch.over, console)
    if not (directory / SUMMARY).exists():
        raise watch.why()
    cure = "mend what the sites ran into, and begin anew under another name"
    conclude(directory, console, cure)


class _Watch:
    """Tells of sites whenever it is asked whether the run is over."""

    def __init__(self, folder: Path, wish: Wish, needed: int, console: Console) -> None:
        self._folder, self._wish, self._needed, self._console = folder, wish, needed, console
        self._directory = Path(wish.directory)
        self._told = len(read_dropped(self._directory))
        self._looked = self._said_at = 0.0
        self._said, self._sites = "", tuple[SeenSite, ...]()

    def over(self) -> bool:
        """Whether the run is over. It is not while the server may go on with it."""
        now = time.time()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._look(now)
        if (self._directory / SUMMARY).exists():
            return True
        run = seen_run(self._folder)
        return run is None or run.name != self._wish.run or run.state in ("failed", "stopped")

    def why(self) -> RunError:
        """Why there is no outcome."""
        run = seen_run(self._folder)
        if run and run.name == self._wish.run and run.state == "failed":
            return RunFailedError(run.problem, cure=run.cure or "see the server's log")
        return RunInterruptedError(
            f"run {self._wish.run} was stopped", cure="the same command goes on with it"
        )

    def _look(self, now: float) -> None:
        status = read_status(self._directory)
        waits = status is None or status.state != "running"
        dropped = read_dropped(self._directory)[self._told :]
        if not (waits or dropped):
            return
        try:
            self._sites = present(self._folder, now)
        except RunError as error:
            self._say(f"waiting: {error.problem}", now)
            return
        for each in dropped:
            text = Text(by_name(each, names(self._sites)), style="yellow")
            self._console.print(text, soft_wrap=True)
        self._told += len(dropped)
        if waits:
            self._say(self._stuck() or waiting_line(self._sites, self._needed, now), now)

    def _stuck(self) -> str:
        """Why the server cannot begin the run, though it tries; empty if it can."""
        tried = Submitted.read(self._folder)
        if tried is None or tried.wish != self._wish.number or not tried.problem:
            return ""
        return f"it cannot begin yet: {tried.problem}; cure: {LOGGED['run-unsubmitted'].cure}"

    def _say(self, line: str, now: float) -> None:
        """Say it unless it was just said; "last seen" alone is no news."""
        news = line.partition(", missing")[0]
        if news != self._said or now - self._said_at > AGAIN_S:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._said, self._said_at = news, now
