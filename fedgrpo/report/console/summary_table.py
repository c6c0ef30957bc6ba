"""The closing table of a run: what it achieved, what it cost, and where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedgrpo.ground.run_files import BEST_ADAPTER, COMPLETIONS, METRICS, REPORT, SUMMARY
from fedgrpo.report.records import Summary, TrainingSummary
from fedgrpo.report.wording import duration, number

Row = tuple[str, str | Text]

MIB = 2**20


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
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 1), title_justify="left")
    table.title = Text("Result", style="bold")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for section in (_achieved(summary), _cost(summary), _privacy(summary)):
        for row in section:
            table.add_row(*row)
        table.add_section()
    for row in _places(summary, run_dir):
        table.add_row(*row)
    (console or Console()).print(table)


def _achieved(summary: Summary) -> Iterator[Row]:
    reward, alone = summary.reward, summary.training
    held_out = f"Held-out {'reward' if alone else 'accuracy'}"
    sampled, greedy = (
        _change(reward.start, reward.end),
        _change(reward.greedy_start, reward.greedy_end),
    )
    if alone:
        sampled.append(f", {number(alone.best)} at the best step", style="dim")
        greedy.append(f", {number(alone.best_greedy)} at the best step", style="dim")
    yield f"{held_out}, sampled", sampled
    yield f"{held_out}, greedy", greedy
    for value, each in reward.by.items():
        yield f"  {value}, sampled", _change(each["start"], each["end"])
    for k, each in reward.pass_at.items():
        yield f"Held-out pass@{k}", _change(each["start"], each["end"])
    if alone:
        yield "Best adapter", f"after step {alone.best_step}, by the sampled reward"


def _cost(summary: Summary) -> Iterator[Row]:
    if alone := summary.training:
        speed = f"{alone.tokens_per_second:.0f} tokens/s, updates included"
        yield "Steps", f"{summary.rounds}, {alone.completions} completions"
        yield "Wall time", f"{duration(summary.wall_s)}, {speed}"
        yield "Peak memory", _memory(alone)
    else:
        yield "Rounds", f"{summary.rounds}, {summary.skipped_rounds or 'none'} skipped"
        yield "Dropped nodes", f"{summary.dropped} over all rounds"
        yield "Wall time", f"{duration(summary.wall_s)}, {_overhead(summary)}"
    if summary.robust:
        yield "Robust rule", summary.robust.words


def _places(summary: Summary, run_dir: Path | None) -> Iterator[Row]:
    files = {"Adapter": summary.adapter}
    if run_dir and (run_dir / BEST_ADAPTER).exists():
        files |= {"Best adapter": BEST_ADAPTER}
    if run_dir:
        files |= {"Picture": REPORT, f"Rows, one a {summary.unit}": METRICS, "Summary": SUMMARY}
    if run_dir and (run_dir / COMPLETIONS).exists():
        files |= {"Held-out completions": COMPLETIONS}
    for name, file in files.items():
        # Text, not str: rich would take brackets in a path for markup.
        yield name, Text(str(run_dir / file if run_dir else file))
    yield "Version", f"fedgrpo {summary.version}, settings {summary.settings[:12]}"


def _change(start: float, end: float) -> Text:
    text = Text(f"{number(start)} -> ")
    text.append(number(end), style="bold")
    return text.append(f"  ({end - start:+.3f})", style="green" if end > start else "red")


def _overhead(summary: Summary) -> str:
    return f"{summary.overhead_share:.0%} of it neither training nor evaluation".replace("%", " %")


def _privacy(summary: Summary) -> Iterator[Row]:
    if not summary.privacy:
        yield "Privacy", Text(summary.without_privacy, style="yellow")
    for index, held in enumerate(summary.privacy):
        text = Text(f"epsilon {held.epsilon:.2f}, delta {held.delta:g}", style="bold")
        text.append(f" for one {held.unit}, against {held.adversary}", style="not bold")
        yield "Privacy" if index == 0 else "", text


def _memory(alone: TrainingSummary) -> str:
    gpu = alone.peak_gpu_bytes
    text = f"{alone.peak_memory_bytes / MIB:.0f} MiB"
    return text if gpu is None else f"{text}, {gpu / MIB:.0f} MiB of the GPU"
