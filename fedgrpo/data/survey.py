"""What a client's prompts would be refused for, all of it at once and without stopping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedgrpo.data.files.row_limits import RowLimit
from fedgrpo.data.prompts import PromptRow, source_row
from fedgrpo.data.sources import Source, raw_rows
from fedgrpo.ground.chats import Prompt
from fedgrpo.ground.errors import DataError


@dataclass(frozen=True)
class Survey:
    """Prompts that can be used, and why the others cannot.

    Attributes
    ----------
    rows:
        Usable ones.
    lengths:
        Their tokens.
    refused:
        Number of rows by reason. No reason quotes a row.
    """

    rows: tuple[PromptRow, ...]
    lengths: tuple[int, ...]
    refused: Mapping[str, int]

    @property
    def count(self) -> int:
        """All rows, usable or not."""
        return len(self.rows) + sum(self.refused.values())


def survey_source(
    source: Source,
    measure: Callable[[Prompt], int],
    limit: int,
    size: RowLimit | None = None,
) -> Survey:
    """Look at every row of a source; see :func:`survey_rows`. Rows above ``size`` are refused
    before anything else is done with them, as a node does.

    Raises
    ------
    DataError
        If the source, or a line of it, cannot be read at all.
    """
    refused: Counter[str] = Counter()
    rows = []
    for number, raw in raw_rows(source, size.row if size else None):
        try:
            rows.append(source_row(raw, source, number, size))
        except DataError as error:
            refused[error.problem.partition(f", row {number} ")[2]] += 1
    return survey_rows(rows, measure, limit, refused)


def survey_rows(
    rows: list[PromptRow],
    measure: Callable[[Prompt], int],
    limit: int,
    refused: Mapping[str, int] | None = None,
) -> Survey:
    """Tell rows that fit from those that do not.

    Parameters
    ----------
    rows:
        Well-formed ones.
    measure:
        Tokens of a prompt; a DataError tells why it has none.
    limit:
        Most tokens that a prompt may have.
    refused:
        Rows that were refused before, by reason.
    """
    counts, usable, lengths = Counter(refused or {}), [], []
    for row in rows:
        try:
            length = measure(row.prompt)
        except DataError as error:
            counts[error.problem] += 1
            continue
        if 0 < length <= limit:
            usable.append(row)
            lengths.append(length)
        else:
            why = f"is longer than grpo.max_prompt_length = {limit} tokens"
            counts[why if length else "has no token"] += 1
    return Survey(tuple(usable), tuple(lengths), dict(counts))
