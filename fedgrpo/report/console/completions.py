"""Held-out prompts with their completions. Private: only where the user asked for it."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from fedgrpo.report.records import SampleRow
from fedgrpo.report.wording import number, prompt_words, short_name


def completions_table(samples: Sequence[SampleRow]) -> Table:
    """Prompts, completions and rewards in columns."""
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
            Text(prompt_words(sample.prompt)),
            Text(sample.completion),
            number(sample.reward, 2),
            *each,
        )
    return table
