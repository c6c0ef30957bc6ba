"""What is said of a run when its command ends, or of any run later."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedgrpo.ground.errors import RunFailedError
from fedgrpo.report.console.summary_table import print_summary
from fedgrpo.report.reader import Run, read_run
from fedgrpo.report.wording import unit_of


def conclude(run_dir: Path, console: Console, cure: str) -> None:
    """Report on a run that has come to its end.

    Raises
    ------
    RunFailedError
        If none of its rounds, or steps, changed the model, whatever else went well: with this cure.
    """
    run = report(run_dir, console)
    done = [row for row in run.rows if row.round]
    if done and not any(row.applied for row in done):
        raise RunFailedError(
            f"none of {len(done)} {unit_of(done)}s counted; the last one: {done[-1].reason}",
            cure=cure,
        )


def report(run_dir: Path, console: Console) -> Run:
    """Draw a run's picture and print its summary and warnings, or how far it has come.

    Raises
    ------
    RunError
        If there is no run, or it has not finished a round.
    """
    from fedgrpo.report.plots import plot_run  # matplotlib is slow to load.

    run = read_run(run_dir)
    plot_run(run_dir)
    for row in run.rows:
        for warning in row.warnings:
            text = f"warning at {unit_of(run.rows)} {row.round}: {warning}"
            console.print(Text(text, style="yellow"), soft_wrap=True)
    if run.summary is not None:
        print_summary(run.summary, console, run_dir)
    elif run.status is not None:
        status, unit = run.status, unit_of(run.rows)
        done = f"{run.rows[-1].round} of {status.rounds} {unit}s"
        console.print(f"Not finished: {status.state} after {done}; the same command resumes")
    return run
