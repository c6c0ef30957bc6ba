"""A run on the console: live on a terminal, one line a round elsewhere, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedgrpo.ground import run_files
from fedgrpo.report import health
from fedgrpo.report.reader import read_rows, read_status
from fedgrpo.report.records import RoundRow, Status
from fedgrpo.report.summary_table import print_summary
from fedgrpo.report.wording import (
    PHASE_WORDS,
    duration,
    epsilon_words,
    number,
    plain_line,
    sparkline,
    time_left,
)
from fedgrpo.settings import METRICS

__all__ = ["LiveView", "follow", "print_summary"]

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
        self._clock = clock
        self._began = clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows, status = read_rows(self.run_dir), read_status(self.run_dir)
        over = status is not None and status.state in STATE_STYLE
        parts: list[RenderableType] = [
            self._progress(rows, over),
            self._phase(status),
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
            Text(f"{done} of {self.rounds} rounds", style="bold"),
            ProgressBar(total=self.rounds, completed=done),
            _times(now - self._began, left),
        )
        return grid

    def _phase(self, status: Status | None) -> Text:
        if status is None:
            return Text("starting", style="dim")
        if status.state in STATE_STYLE:
            return Text(status.state, style=f"bold {STATE_STYLE[status.state]}")
        words = PHASE_WORDS.get(status.phase, status.phase)
        text = Text(f"Round {status.round}: " if status.round else "Before training: ")
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
) -> None:
    """Show a run until ``finished()``, then once more, so that its last round is seen.

    On a terminal the view is live. Elsewhere (a pipe, a CI log) each finished round is one line.

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
    """
    console = console or Console()
    if console.is_terminal and not console.is_dumb_terminal:
        _follow_live(run_dir, rounds, finished, console, interval_s)
    else:
        for line in _plain_lines(run_dir, rounds, finished, interval_s):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _follow_live(
    run_dir: Path, rounds: int, finished: Callable[[], bool], console: Console, interval_s: float
) -> None:
    with Live(LiveView(run_dir, rounds), console=console, auto_refresh=False) as live:
        while not finished():
            live.refresh()
            time.sleep(interval_s)
        live.refresh()


def _plain_lines(
    run_dir: Path, rounds: int, finished: Callable[[], bool], interval_s: float
) -> Iterator[str]:
    printed: dict[int, RoundRow] = {}
    warned: set[str] = set()
    over = False
    while not over:
        over = finished()
        rows = read_rows(run_dir)
        for index, row in enumerate(rows, start=1):
            if printed.get(row.round) == row:
                continue
            printed[row.round] = row
            yield plain_line(row, rows[:index], rounds)
            for warning in health.warnings(rows[:index]):
                kind = warning.split(". ")[-1]  # The figures change each round, the cure does not.
                if kind not in warned:
                    warned.add(kind)
                    yield f"warning: {warning}"
        if not over:
            time.sleep(interval_s)


def _written(run_dir: Path) -> float:
    """Unix time of the last row: when the round under way began."""
    path = run_dir / run_files.METRICS
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


def _lines(rows: Sequence[RoundRow]) -> list[tuple[str, str, str, str, str]]:
    """Name, current value, first value, trend and meaning of each figure."""

    def line(
        name: str, values: list[float | None], digits: int, meaning: str
    ) -> tuple[str, str, str, str, str]:
        known = [value for value in values if value is not None]
        now, start = (known[-1], known[0]) if known else (None, None)
        return name, number(now, digits), number(start, digits), sparkline(values), meaning

    trained = [row for row in rows if row.round > 0]
    lost = sum(row.dropped for row in trained)
    nodes = f"{trained[-1].finished} finished the last round, {lost} lost in all" if trained else ""
    told = {name: [row.metrics.get(name) for row in trained] for name in METRICS}

    def metric(name: str) -> tuple[str, str, str, str, str]:
        found = METRICS[name]
        return line(found.label, told[name], found.digits, found.meaning)

    others = [
        name
        for name, values in told.items()
        if METRICS[name].meaning and name != "reward" and any(v is not None for v in values)
    ]
    spent = line("Epsilon", [row.epsilon for row in rows], 2, "privacy spent so far")
    return [
        metric("reward"),
        line("Held-out, sampled", [row.sampled for row in rows], 3, "accuracy at the server"),
        line("Held-out, greedy", [row.greedy for row in rows], 3, "accuracy, likeliest answers"),
        line("KL to the start", [row.kl_base for row in rows], 3, "nats a token, held-out prompts"),
        *map(metric, others),
        line("Clipping norm", [row.clipping_norm for row in rows], 3, "limit of one contribution"),
        line("Dropped nodes", [row.dropped for row in trained], 0, nodes),
        (spent[0], epsilon_words(rows), *spent[2:]),
    ]


def _notes(rows: Sequence[RoundRow], status: Status | None) -> Iterator[RenderableType]:
    """Yield what the reader should act on: a skipped round, warnings, the cause of an end."""
    if rows and rows[-1].reason:
        skipped = f"Round {rows[-1].round} left the model as it was: {rows[-1].reason}"
        yield Padding(Text(skipped, style="yellow"), (1, 0, 0, 0))
    for warning in health.warnings(rows):
        yield Padding(Text(f"Warning: {warning}", style="yellow"), (1, 0, 0, 0))
    if status and status.problem:
        cause = Text(status.problem, style=STATE_STYLE.get(status.state, ""))
        if status.cure:
            cause.append(f"\nCure: {status.cure}", style="default")
        yield Padding(cause, (1, 0, 0, 0))
