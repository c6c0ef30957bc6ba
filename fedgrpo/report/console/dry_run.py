"""What taking part would mean for a data holder, as figures and on the console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedgrpo.ground.records import Record
from fedgrpo.report.wording import number, short_name

BINS = 10
BAR = 32
"""Columns of the longest bar."""
KIB = 2**10


@dataclass(frozen=True)
class Bin(Record):
    """Completions with a reward from ``low`` to ``high``; equal where one value is counted."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Histogram(Record):
    """Rewards of one function over the sampled completions."""

    bins: list[Bin]
    missing: int
    """Completions that the function does not apply to."""


@dataclass(frozen=True, kw_only=True)
class DryRun(Record):
    """Figures of one sampled batch, and what a round would cost. Holds no text of a prompt."""

    prompts: int
    """Prompts that the node has, usable or not."""
    refused: dict[str, int]
    """Rows that would be refused, by reason: one is enough for a node to refuse its whole file."""
    shortest: int
    """Tokens of the shortest usable prompt."""
    longest: int
    """Tokens of the longest usable prompt."""
    sampled_prompts: int
    """Prompts of the batch on which everything below was measured."""
    completions: int
    """Completions of that batch."""
    reward: float
    """Mean weighted reward."""
    rewards: dict[str, Histogram]
    """By function."""
    zero_signal: float
    """Share of groups whose completions all have one reward."""
    truncated: float
    """Share of completions cut at the length limit."""
    length: float
    """Mean tokens of a completion."""
    tokens_per_second: float
    """Of sampling, without judging and without the update."""
    judging_s: float
    """Seconds to judge the batch."""
    round_s: float
    """Seconds of a whole local round: sampling, judging and update as configured."""
    round_unit: str
    """What a round was taken to be."""
    peak_memory_bytes: int
    """Largest resident memory of this process."""
    peak_gpu_bytes: int | None
    """Largest memory that torch held on the GPU. None without one."""
    foretold_bytes: int
    """What a round takes at its peak on top of the loaded model, if every completion is as long as
    it may be, on the GPU where there is one; foretold, not measured."""
    free_bytes: int
    """What there was for that."""
    dimension: int
    """Trainable values of the adapter."""
    adapter_bytes: int
    """Of these values, float32."""
    sent_bytes: float
    """By a node in a round, over all messages of the configured protocol."""
    received_bytes: float
    """By a node in a round."""
    member_sent_bytes: float
    """On top of that, by a node that is a member of the committee; 0 without one."""
    member_received_bytes: float
    """The same."""
    warnings: list[str]
    """What would keep this node from taking part, or the trainer from learning, with the cure."""


def histogram(values: NDArray[np.float64]) -> Histogram:
    """Count rewards, shape (n,), NaN where a function does not apply: by value where there are
    few, else in equal bins.
    """
    known = values[~np.isnan(values)]
    distinct, counts = np.unique(known, return_counts=True)
    if len(distinct) <= BINS:
        bins = [Bin(float(v), float(v), int(n)) for v, n in zip(distinct, counts, strict=True)]
    else:
        heights, edges = np.histogram(known, bins=BINS)
        bins = [
            Bin(float(low), float(high), int(n))
            for low, high, n in zip(edges[:-1], edges[1:], heights, strict=True)
        ]
    return Histogram(bins, int(values.size - known.size))


def print_dry_run(found: DryRun, console: Console) -> None:
    """Print the figures for people."""
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 1), title_justify="left")
    table.title = Text("Dry run: nothing was written or sent", style="bold")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for section in (_prompts(found), _completions(found), _costs(found), _traffic(found)):
        for name, words in section:
            table.add_row(name, Text(words))
        table.add_section()
    console.print(table)
    for name, counted in found.rewards.items():
        console.print(_bars(name, counted, console))
    for warning in found.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _prompts(found: DryRun) -> list[tuple[str, str]]:
    refused = [f"{count}: {reason}" for reason, count in found.refused.items()]
    return [
        ("Prompts", f"{found.prompts}, {found.shortest} to {found.longest} tokens"),
        ("Would be refused", "\n".join(refused) or "none"),
    ]


def _completions(found: DryRun) -> list[tuple[str, str]]:
    return [
        ("Sampled", f"{found.completions} completions of {found.sampled_prompts} prompts"),
        ("Reward", number(found.reward)),
        ("Groups without signal", _percent(found.zero_signal)),
        ("Completions cut", _percent(found.truncated)),
        ("Completion length", f"{found.length:.1f} tokens"),
    ]


def _costs(found: DryRun) -> list[tuple[str, str]]:
    gpu = found.peak_gpu_bytes
    memory = f"{found.peak_memory_bytes / KIB**2:.0f} MiB"
    return [
        ("Sampling", f"{found.tokens_per_second:.0f} tokens/s"),
        ("Judging", f"{found.judging_s:.2f} s for these completions"),
        ("One local round", f"{found.round_s:.2f} s, {found.round_unit}"),
        ("Peak memory", memory if gpu is None else f"{memory}, {gpu / KIB**2:.0f} MiB of the GPU"),
        (
            "Longest completions",
            f"{_size(found.foretold_bytes)} beside the model, of {_size(found.free_bytes)} free",
        ),
    ]


def _traffic(found: DryRun) -> list[tuple[str, str]]:
    return [
        ("Adapter", f"{found.dimension} values, {_size(found.adapter_bytes)}"),
        ("Sent in a round", _size(found.sent_bytes) + _on_top(found.member_sent_bytes)),
        ("Received in a round", _size(found.received_bytes) + _on_top(found.member_received_bytes)),
    ]


def _on_top(member_bytes: float) -> str:
    return f", {_size(member_bytes)} more as a member" if member_bytes else ""


def _bars(name: str, counted: Histogram, console: Console) -> Table:
    mark = "#" if console.options.ascii_only else "█"
    most = max((item.count for item in counted.bins), default=1)
    table = Table(
        title=Text(f"Reward {short_name(name)}"), title_justify="left", box=None, show_header=False
    )
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right")
    for item in counted.bins:
        span = number(item.low) if item.low == item.high else _span(item)
        table.add_row(span, mark * -(-BAR * item.count // most), str(item.count))
    if counted.missing:
        table.add_row("does not apply", "", str(counted.missing))
    return table


def _span(item: Bin) -> str:
    return f"{number(item.low)} to {number(item.high)}"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _size(count: float) -> str:
    units: Sequence[str] = ("B", "KiB", "MiB", "GiB")
    power = 0
    while count >= KIB and power < len(units) - 1:
        count, power = count / KIB, power + 1
    return f"{count:.1f} {units[power]}" if power else f"{count:.0f} B"
