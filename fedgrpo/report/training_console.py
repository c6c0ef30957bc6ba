"""Training without a federation on the console: a row an evaluation, a table at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedgrpo.report.summary_table import print_training
from fedgrpo.report.training import EvaluationRow, Row, SampleRow, read_training
from fedgrpo.report.wording import duration, number, short_name, sparkline

WINDOW = 10
"""Steps that the live line averages and draws."""


class TrainingView:
    """Shows steps, evaluations and warnings as they come.

    On a terminal a live line follows the steps. Elsewhere (a pipe, a CI log) only the rows are
    written, in ASCII.

    Parameters
    ----------
    steps:
        In all.
    console:
        Where to write.
    show_completions:
        Whether prompts and completions may be shown.
    """

    def __init__(self, steps: int, console: Console, *, show_completions: bool = False) -> None:
        self.steps = steps
        self.console = console
        self.show_completions = show_completions
        self._since: list[Row] = []
        self._recent: deque[Row] = deque(maxlen=WINDOW)
        self._began, self._first_step = time.monotonic(), -1
        self._progress = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_dumb_terminal,
        )
        self._task = self._progress.add_task("", total=steps, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, row: Row) -> None:
        """Move the live line."""
        self._since.append(row)
        self._recent.append(row)
        trend = sparkline([step["reward"] for step in self._recent])
        figures = f"reward {number(_mean(self._recent, 'reward'))} [cyan]{trend}[/]"
        self._progress.update(self._task, completed=row["step"], figures=figures)

    def evaluation(self, row: EvaluationRow, samples: Sequence[SampleRow]) -> None:
        """Write an evaluation with the means of the steps that led to it."""
        left = self._time_left(row.step)
        line = evaluation_line(row, self._since, self.steps) + left
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.show_completions:
            self.console.print(completions_table(samples))
        self._since = []
        self._progress.update(self._task, completed=row.step)

    def warning(self, message: str) -> None:
        """Write a warning with its cure."""
        self.console.print(
            Text(f"warning: {message}", style="yellow"), highlight=False, soft_wrap=True
        )

    def _time_left(self, step: int) -> str:
        """From the mean of all that this process did."""
        now = time.monotonic()
        if self._first_step < 0 or step <= self._first_step:
            self._began, self._first_step = now, step
            return ""
        each = (now - self._began) / (step - self._first_step)
        return f"  {duration((self.steps - step) * each)} left" if step < self.steps else ""


def evaluation_line(row: EvaluationRow, steps: Sequence[Row], total: int) -> str:
    """Write an evaluation as one line of ASCII.

    Parameters
    ----------
    row:
        The evaluation.
    steps:
        Since the last one: their means are shown. None before training.
    total:
        Steps in all.
    """
    head = f"step {row.step:>{len(str(total))}}/{total}"
    held_out = f"held-out {number(row.sampled)} sampled, {number(row.greedy)} greedy"
    if not steps:
        return "  ".join([head, held_out])
    return "  ".join(
        [
            head,
            held_out,
            f"reward {number(_mean(steps, 'reward'))}",
            f"entropy {number(_mean(steps, 'entropy'))}",
            f"KL to start {number(row.kl)}",
            f"truncated {number(_mean(steps, 'truncated'), 2)}",
            f"zero signal {number(_mean(steps, 'zero_signal'), 2)}",
            f"{_rate(steps):.0f} tokens/s",
        ]
    )


def completions_table(samples: Sequence[SampleRow]) -> Table:
    """Prompts with their completions and rewards. Private: only where the user asked for it."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 1))
    table.add_column("prompt", overflow="fold", ratio=2)
    table.add_column("completion", overflow="fold", ratio=3)
    names = list(samples[0].rewards) if samples else []
    for name in ["reward", *(names if len(names) > 1 else [])]:
        table.add_column(short_name(name), justify="right")
    for sample in samples:
        each = [number(value, 2) for value in sample.rewards.values()] if len(names) > 1 else []
        # Text, not str: rich would take brackets for markup.
        table.add_row(
            Text(_words(sample.prompt)), Text(sample.completion), number(sample.reward, 2), *each
        )
    return table


def report(run_dir: Path, console: Console) -> None:
    """Draw a run's picture and print its summary and warnings, or how far it has come.

    Raises
    ------
    RunError
        If nothing was evaluated there yet.
    """
    from fedgrpo.report.training_plot import plot_training  # matplotlib is slow to load.

    training = read_training(run_dir)
    plot_training(run_dir)
    for warning in training.warnings:
        text = Text(f"warning at step {warning.step}: {warning.message}", style="yellow")
        console.print(text, soft_wrap=True)
    if training.summary is None:
        done = training.steps[-1]["step"] if training.steps else 0
        console.print(f"Not finished: {done} steps taken; the same command resumes")
        return
    print_training(training.summary, console, run_dir)


def _mean(rows: Iterable[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known) / len(known) if known else None


def _rate(rows: Sequence[Row]) -> float:
    """Sampled tokens a second: a step without fresh completions has a rate of 0."""
    tokens = sum(row["tokens"] for row in rows if row["tokens_per_second"])
    return float(tokens / max(sum(row["seconds"] for row in rows), 1e-9))


def _words(prompt: str | list[dict[str, str]]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
