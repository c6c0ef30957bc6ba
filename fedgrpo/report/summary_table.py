"""The closing table of a run."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedgrpo.ground.run_files import METRICS, REPORT, SUMMARY
from fedgrpo.report.records import RobustSummary, Summary
from fedgrpo.report.wording import duration, number


def print_summary(
    summary: Summary, console: Console | None = None, run_dir: Path | None = None
) -> None:
    """Print what a run achieved, what it cost, what it guarantees and where it lies.

    Parameters
    ----------
    summary:
        Outcome of the run.
    console:
        Where to print. The default is standard output.
    run_dir:
        Run directory; with it, the files of the run are named by path.
    """
    console = console or Console()
    reward = summary.reward
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 1), title_justify="left")
    table.title = Text("Result", style="bold")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Held-out accuracy, sampled", _change(reward.start, reward.end))
    table.add_row("Held-out accuracy, greedy", _change(reward.greedy_start, reward.greedy_end))
    table.add_section()
    table.add_row("Rounds", _rounds(summary))
    table.add_row("Dropped nodes", f"{summary.dropped} over all rounds")
    table.add_row("Wall time", f"{duration(summary.wall_s)}, {_overhead(summary)}")
    table.add_row("Robust rule", _rule(summary.robust))
    table.add_section()
    _add_privacy(table, summary)
    table.add_section()
    _add_places(table, summary, run_dir)
    console.print(table)


def _change(start: float, end: float) -> Text:
    text = Text(f"{number(start)} -> ")
    text.append(number(end), style="bold")
    return text.append(f"  ({end - start:+.3f})", style="green" if end > start else "red")


def _rounds(summary: Summary) -> str:
    skipped = summary.skipped_rounds
    return f"{summary.rounds}, {skipped or 'none'} skipped"


def _overhead(summary: Summary) -> str:
    return f"{summary.overhead_share:.0%} of it neither training nor evaluation".replace("%", " %")


def _rule(robust: RobustSummary) -> str:
    text = robust.words
    count = "" if robust.trim == 1 else f"{robust.trim} "
    dropped = f", each coordinate without its {count}lowest and {count}highest"
    return text + (dropped if robust.trim else "")


def _add_privacy(table: Table, summary: Summary) -> None:
    if not summary.privacy:
        table.add_row("Privacy", Text("no differential privacy", style="yellow"))
    for index, held in enumerate(summary.privacy):
        text = Text(f"epsilon {held.epsilon:.2f}, delta {held.delta:g}", style="bold")
        text.append(f" for one {held.unit}, against {held.adversary}", style="not bold")
        table.add_row("Privacy" if index == 0 else "", text)


def _add_places(table: Table, summary: Summary, run_dir: Path | None) -> None:
    # Text, not str: rich would take brackets in a path for markup.
    table.add_row("Adapter", Text(str(run_dir / summary.adapter if run_dir else summary.adapter)))
    for name, file in (("Picture", REPORT), ("Rows, one a round", METRICS), ("Summary", SUMMARY)):
        if run_dir and (run_dir / file).exists():
            table.add_row(name, Text(str(run_dir / file)))
    table.add_row("Version", f"fedgrpo {summary.version}, settings {summary.settings[:12]}")
