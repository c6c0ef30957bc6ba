"""``fedgrpo report``: what a run came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedgrpo.cli.outcome import explained


def report(
    run_dir: Annotated[
        Path, typer.Argument(help="Directory of a run, finished or not.", show_default=False)
    ],
) -> None:
    """Print the summary of a run and draw its picture again."""
    with explained():
        from fedgrpo.report.training import EVALUATIONS

        if (run_dir / EVALUATIONS).exists():
            from fedgrpo.report.training_console import report as print_report
        else:
            from fedgrpo.federation.simulation.simulate import report as print_report

        print_report(run_dir, Console())
