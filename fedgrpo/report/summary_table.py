"""The closing table of a run: what it achieved, what it cost, and where it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedgrpo.ground.run_files import METRICS, REPORT, SUMMARY
from fedgrpo.report.records import Summary
from fedgrpo.report.training import (
    ADAPTER,
    BEST_ADAPTER,
    COMPLETIONS,
    OUTCOME,
    PICTURE,
    STEPS,
    Rewards,
    TrainingSummary,
)
from fedgrpo.report.wording import duration, number

Row = tuple[str, str | Text]

MIB = 2**20


def print_summary(
    summary: Summary, console: Console | None = None, run_dir: Path | None = None
) -> None:
    """Print what a federation achieved, what it cost, what it guarantees and where it lies.

    Parameters
    ----------
    summary:
        Outcome of the run.
    console:
        Where to print. The default is standard output.
    run_dir:
        Run directory; with it, the files of the run are named by path.
    """
    reward = summary.reward
    achieved: list[Row] = [
        ("Held-out accuracy, sampled", _change(reward.start, reward.end)),
        ("Held-out accuracy, greedy", _change(reward.greedy_start, reward.greedy_end)),
    ]
    cost: list[Row] = [
        ("Rounds", f"{summary.rounds}, {summary.skipped_rounds or 'none'} skipped"),
        ("Dropped nodes", f"{summary.dropped} over all rounds"),
        ("Wall time", f"{duration(summary.wall_s)}, {_overhead(summary)}"),
        ("Robust rule", summary.robust.words),
    ]
    files = {"Picture": REPORT, "Rows, one a round": METRICS, "Summary": SUMMARY}
    found = {name: run_dir / file for name, file in files.items()} if run_dir else {}
    # Text, not str: rich would take brackets in a path for markup.
    places: list[Row] = [
        ("Adapter", Text(str(run_dir / summary.adapter if run_dir else summary.adapter))),
        *((name, Text(str(path))) for name, path in found.items() if path.exists()),
    ]
    table = _table(summary, achieved, cost, list(_privacy(summary)), places)
    (console or Console()).print(table)


def print_training(summary: TrainingSummary, console: Console, run_dir: Path) -> None:
    """Print what training alone achieved, what it cost and where it lies."""
    speed = f"{summary.tokens_per_second:.0f} tokens/s, updates included"
    achieved: list[Row] = [
        ("Held-out reward, sampled", _best(summary.sampled)),
        ("Held-out reward, greedy", _best(summary.greedy)),
        ("Best adapter", f"after step {summary.best_step}, by the sampled reward"),
    ]
    cost: list[Row] = [
        ("Steps", f"{summary.steps}, {summary.completions} completions"),
        ("Wall time", f"{duration(summary.seconds)}, {speed}"),
        ("Peak memory", _memory(summary)),
        ("Privacy", Text(summary.privacy, style="yellow")),
    ]
    files = {
        "Adapter": ADAPTER,
        "Best adapter": BEST_ADAPTER,
        "Picture": PICTURE,
        "Rows, one a step": STEPS,
        "Completions": COMPLETIONS,
        "Summary": OUTCOME,
    }
    places: list[Row] = [(name, Text(str(run_dir / file))) for name, file in files.items()]
    console.print(_table(summary, achieved, cost, places))


def _table(summary: Summary | TrainingSummary, *sections: Sequence[Row]) -> Table:
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 1), title_justify="left")
    table.title = Text("Result", style="bold")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for section in sections:
        for row in section:
            table.add_row(*row)
        if section is not sections[-1]:
            table.add_section()
    table.add_row("Version", f"fedgrpo {summary.version}, settings {summary.settings[:12]}")
    return table


def _change(start: float, end: float) -> Text:
    text = Text(f"{number(start)} -> ")
    text.append(number(end), style="bold")
    return text.append(f"  ({end - start:+.3f})", style="green" if end > start else "red")


def _best(rewards: Rewards) -> Text:
    best = f", {number(rewards.best)} at the best step"
    return _change(rewards.start, rewards.end).append(best, style="dim")


def _overhead(summary: Summary) -> str:
    return f"{summary.overhead_share:.0%} of it neither training nor evaluation".replace("%", " %")


def _privacy(summary: Summary) -> Iterator[Row]:
    if not summary.privacy:
        yield "Privacy", Text("no differential privacy", style="yellow")
    for index, held in enumerate(summary.privacy):
        text = Text(f"epsilon {held.epsilon:.2f}, delta {held.delta:g}", style="bold")
        text.append(f" for one {held.unit}, against {held.adversary}", style="not bold")
        yield "Privacy" if index == 0 else "", text


def _memory(summary: TrainingSummary) -> str:
    gpu = summary.peak_gpu_bytes
    text = f"{summary.peak_memory_bytes / MIB:.0f} MiB"
    return text if gpu is None else f"{text}, {gpu / MIB:.0f} MiB of the GPU"
