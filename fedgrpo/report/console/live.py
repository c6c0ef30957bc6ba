"""A run on the console while it goes on: live on a terminal, in lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedgrpo.ground.run_files import METRICS
from fedgrpo.report.console.completions import completions_table
from fedgrpo.report.console.health import warnings
from fedgrpo.report.figures import Figure, figures, series
from fedgrpo.report.reader import Watched, read_samples, read_status
from fedgrpo.report.records import RoundRow, Status
from fedgrpo.report.wording import (
    PHASE_WORDS,
    duration,
    epsilon_words,
    number,
    plain_line,
    sparkline,
    time_left,
    unit_of,
)

WIDE = 92
"""Columns from which each figure is explained in words."""
STATE_STYLE = {"failed": "red", "interrupted": "yellow", "finished": "green"}


class LiveView:
    """The run directory as it is at the moment of drawing: progress, phase, figures, warnings.

    Parameters
    ----------
    run_dir:
        Watched for ``status.json`` and ``metrics.jsonl``; neither has to exist yet.
    rounds:
        Rounds in all.
    clock:
        Unix time in seconds.
    """

    def __init__(
        self, run_dir: Path, rounds: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.run_dir = run_dir
        self.rounds = rounds
        self.watched = Watched(run_dir)
        self._clock = clock
        self._began = clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows, status = self.watched.rows(), read_status(self.run_dir)
        over = status is not None and status.state in STATE_STYLE
        parts: list[RenderableType] = [
            self._progress(rows, over),
            self._phase(status, unit_of(rows)),
            _figures(rows, options),
            *_notes(rows, status),
        ]
        style = STATE_STYLE.get(status.state if status else "", "cyan")
        title = Text.assemble(("fedgrpo", "bold"), " ", (self.run_dir.name, "dim"))
        yield Panel(
            Group(*parts), title=title, title_align="left", border_style=style, padding=(0, 1)
        )

    def _progress(self, rows: Sequence[RoundRow], over: bool) -> Table:
        done = rows[-1].round if rows else 0
        now = self._clock()
        # A resumed run's last row may be hours old; its next round began with this view.
        since = max(self._began, _written(self.run_dir))
        left = None if over or done >= self.rounds else time_left(rows, self.rounds, now - since)
        grid = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        grid.add_row(
            Text(f"{done} of {self.rounds} {unit_of(rows)}s", style="bold"),
            ProgressBar(total=self.rounds, completed=done),
            _times(now - self._began, left),
        )
        return grid

    def _phase(self, status: Status | None, unit: str) -> Text:
        if status is None:
            return Text("starting", style="dim")
        if status.state in STATE_STYLE:
            return Text(status.state, style=f"bold {STATE_STYLE[status.state]}")
        words = PHASE_WORDS.get(status.phase, status.phase)
        text = Text(f"{unit.title()} {status.round}: " if status.round else "Before training: ")
        text.append(words, style="bold")
        if status.detail:
            text.append(f", {status.detail}")
        text.append(f"  {duration(max(0.0, self._clock() - status.since))}", style="dim")
        return text


def follow(
    run_dir: Path,
    rounds: int,
    finished: Callable[[], bool],
    console: Console | None = None,
    interval_s: float = 0.25,
    *,
    show_completions: bool = False,
) -> None:
    """Show a run until ``finished()``, then once more, so that its last round is seen.

    On a terminal the view is live. Elsewhere (a pipe, a CI log) each finished round is one line,
    and of training alone each evaluation.

    Parameters
    ----------
    run_dir:
        Run directory, also one that another process has yet to make.
    rounds:
        Rounds in all.
    finished:
        Asked before every look at the directory.
    console:
        Where to write. The default is standard output.
    interval_s:
        Seconds between two looks.
    show_completions:
        Whether held-out prompts and completions are printed at each evaluation.
    """
    console, view = console or Console(), LiveView(run_dir, rounds)
    lively = console.is_terminal and not console.is_dumb_terminal
    told = _Told(run_dir, rounds, show_completions)
    with Live(view, console=console, auto_refresh=False) if lively else nullcontext() as live:
        over = False
        while not over:
            over = finished()
            for what in told.news(view.watched.rows()):
                if not (lively and isinstance(what, str)):
                    console.print(what, markup=False, highlight=False, soft_wrap=not lively)
            if live:
                live.refresh()
            if not over:
                time.sleep(interval_s)


@contextmanager
def shown(
    run_dir: Path, rounds: int, console: Console | None, *, show_completions: bool = False
) -> Iterator[None]:
    """Show the run directory from a thread, while this one computes and hears Ctrl-C."""
    if console is None:
        yield
        return
    over = threading.Event()
    view = threading.Thread(
        target=follow,
        args=(run_dir, rounds, over.is_set, console),
        kwargs={"show_completions": show_completions},
    )
    view.start()
    try:
        yield
    finally:
        over.set()
        view.join()


class _Told:
    """What was said of a run in lines, so that nothing is said twice but what was done again."""

    def __init__(self, run_dir: Path, rounds: int, show_completions: bool) -> None:
        self.run_dir, self.rounds, self.show_completions = run_dir, rounds, show_completions
        self._printed: dict[int, RoundRow] = {}
        self._warned: set[str] = set()
        self._last = -1

    def news(self, rows: Sequence[RoundRow]) -> Iterator[str | Table]:
        """Lines of text, and tables of completions, for rows that are new."""
        for index, row in enumerate(rows, start=1):
            if self._printed.get(row.round) == row:
                continue
            self._printed[row.round] = row
            if not row.alone or row.sampled is not None:
                yield plain_line(row, rows[:index], self.rounds, self._last)
                self._last = row.round
            yield from self._warnings(rows[:index])
            if self.show_completions and row.sampled is not None:
                kept = read_samples(self.run_dir)
                yield completions_table([each for each in kept if each.round == row.round])

    def _warnings(self, rows: Sequence[RoundRow]) -> Iterator[str]:
        for warning in warnings(rows):
            kind = warning.split(". ")[-1]  # The figures change each round, the cure does not.
            if kind not in self._warned:
                self._warned.add(kind)
                yield f"warning: {warning}"


def _written(run_dir: Path) -> float:
    """Unix time of the last row: when the round under way began."""
    path = run_dir / METRICS
    return path.stat().st_mtime if path.exists() else 0.0


def _times(spent: float, left: float | None) -> Text:
    text = Text(f"{duration(spent)} elapsed", style="dim")
    if left is not None:
        text.append(f", {duration(left)} left", style="not dim bold")
    return text


def _figures(rows: Sequence[RoundRow], options: ConsoleOptions) -> RenderableType:
    wide, bars = options.max_width >= WIDE, not options.ascii_only
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("", no_wrap=True)
    table.add_column("now", justify="right", min_width=6)
    table.add_column("start", justify="right", style="dim", min_width=6)
    if bars:
        table.add_column("trend", style="cyan", min_width=16, no_wrap=True)
    if wide:
        table.add_column("", style="dim", overflow="ellipsis", no_wrap=True)
    for name, now, start, trend, meaning in _lines(rows):
        table.add_row(name, f"[bold]{now}[/]", start, *[trend] * bars, *[meaning] * wide)
    return Padding(table, (1, 0, 0, 0))


def _lines(rows: Sequence[RoundRow]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield name, current value, first value, trend and meaning of each figure."""
    for figure in figures(rows):
        values = series(rows, figure.read).values
        if figure.meaning and (values or not rows or figure.label == "Epsilon"):
            yield _line(figure, values, rows)


def _line(
    figure: Figure, values: Sequence[float], rows: Sequence[RoundRow]
) -> tuple[str, str, str, str, str]:
    now, start = (values[-1], values[0]) if values else (None, None)
    words, meaning = number(now, figure.digits), figure.meaning
    if figure.label == "Epsilon":
        words = epsilon_words(rows)
    if figure.label == "Dropped nodes":
        lost = sum(row.dropped for row in rows if row.round)
        meaning = f"{rows[-1].finished if rows else 0} finished the last round, {lost} lost in all"
    return figure.label, words, number(start, figure.digits), sparkline(values), meaning


def _notes(rows: Sequence[RoundRow], status: Status | None) -> Iterator[RenderableType]:
    """Yield what the reader should act on: a skipped round, warnings, the cause of an end."""
    if rows and rows[-1].reason:
        skipped = (
            f"{unit_of(rows).title()} {rows[-1].round} left the model as it was: {rows[-1].reason}"
        )
        yield Padding(Text(skipped, style="yellow"), (1, 0, 0, 0))
    for warning in warnings(rows):
        yield Padding(Text(f"Warning: {warning}", style="yellow"), (1, 0, 0, 0))
    if status and status.problem:
        cause = Text(status.problem, style=STATE_STYLE.get(status.state, ""))
        if status.cure:
            cause.append(f"\nCure: {status.cure}", style="default")
        yield Padding(cause, (1, 0, 0, 0))
