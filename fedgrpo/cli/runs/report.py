"""``fedgrpo report``: what a run came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedgrpo.cli.outcome import explained


def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Directories of runs, finished or not.", show_default=False
        ),
    ],
) -> None:
    """Print the summary of each run, draw its picture again, and write a page in HTML.

    The page needs no network. It lies in the run's directory as report.html; of several runs, which
    it shows side by side, in the first one's as comparison.html. It shows held-out prompts with
    completions, if the run kept any: nobody but its owner may read it.
    """
    with explained():
        from fedgrpo.cli.runs.checked import check_ledger
        from fedgrpo.report.console import report as print_report
        from fedgrpo.report.page import write_page

        console = Console()
        runs = [print_report(run_dir, console) for run_dir in run_dirs]
        page = write_page(runs, [check_ledger(run.path) for run in runs])
        console.print(f"Page: {page}", highlight=False, markup=False, soft_wrap=True)
