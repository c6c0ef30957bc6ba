"""What privacy at prompt level hides: a unit, and which of its rows take part in a round.

A unit is everything that belongs to one text or, where ``data.unit`` names a column, to one value
of that column. All rows of a unit are sampled by one coin and clipped together, so that a text that
stands in the file ten times, or a person with ten rows, is hidden like any other.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.chats import Prompt, canonical, plain_text
from fedgrpo.ground.crypto import shuffled
from fedgrpo.ground.errors import DataError

Render = Callable[[Prompt], str]
"""What a model reads of a prompt, for example after its chat template."""


@dataclass(frozen=True)
class Unit:
    """Rows that are hidden together.

    Attributes
    ----------
    name:
        SHA-256 (hex) of what makes the unit: its text, or its column's value. Both can be guessed
        from it, so it stays on the machine like the rows themselves.
    rows:
        Positions among the site's rows, in an order that follows from the rows' content.
    """

    name: str
    rows: tuple[int, ...]


def units_of(
    rows: Sequence[PromptRow], column: str = "", render: Render = plain_text
) -> tuple[Unit, ...]:
    """Group rows into units.

    Without a column, rows whose prompts render alike are one unit, whatever their other columns.
    With one, its value alone decides: equal texts of two persons stay apart, because joined, one
    person's rows could merge two other units, and then move a sum by three clipped gradients.

    Values count as equal if they are written alike: 7, 7.0 and "7" are one unit, so that a column
    of mixed types does not split a person. Rows without a value (no column, null, NaN, blank text)
    are one unit together. Nobody knows whose they are, and as units of their own they could be many
    of one person; together, whoever they belong to is hidden.

    Parameters
    ----------
    rows:
        A site's rows.
    column:
        ``data.unit``; empty takes the text.
    render:
        What makes two prompts the same text. Used without a column only.

    Returns
    -------
    tuple[Unit, ...]
        Ordered by name. Every row is in exactly one, and neither names nor orders depend on the
        order of ``rows``.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        found[_name(row, column, render)].append(index)
    return tuple(
        Unit(name, tuple(sorted(found[name], key=lambda i: _content(rows[i]))))
        for name in sorted(found)
    )


def chosen_rows(unit: Unit, limit: int, key: bytes) -> tuple[int, ...]:
    """Choose the rows of a unit that take part in a round.

    They depend on this unit and its key alone, and on no other unit.

    Parameters
    ----------
    unit:
        Of the site.
    limit:
        ``data.unit_rows``: most rows of a unit a round, at least 1.
    key:
        32 secret bytes of this unit in this round, used only here.

    Returns
    -------
    tuple[int, ...]
        At most ``limit`` positions, a uniform choice, in the order of ``unit.rows``.
    """
    if len(unit.rows) <= limit:
        return unit.rows
    taken = set(shuffled(unit.rows, key)[:limit])
    return tuple(row for row in unit.rows if row in taken)


def check_unit_column(rows: Sequence[PromptRow], column: str, source: str) -> None:
    """Refuse rows without a value in the unit's column, in front of the people whose rows they are.

    A node never does: whether it refuses would tell about a row. There, :func:`units_of` decides.

    Raises
    ------
    DataError
        With the number of such rows, and the first.
    """
    if not column:
        return
    lacking = [n for n, row in enumerate(rows, start=1) if _value(row, column) is None]
    if lacking:
        raise DataError(
            f"prompt source {source}: {len(lacking)} of {len(rows)} rows have no value in column "
            f"{column!r}, which data.unit names; the first is row {lacking[0]}",
            cure="fill the column in, or take these rows out: otherwise all of them together are "
            "one unit",
        )


def unit_words(units: Sequence[Unit], column: str) -> str:
    """Say in a sentence how rows became units, for the site's own log."""
    rows, largest = sum(len(u.rows) for u in units), max((len(u.rows) for u in units), default=0)
    alike = f"the same value of {column!r}" if column else "the same text"
    return (
        f"{rows} rows are {len(units)} units (rows with {alike} are one); the largest has "
        f"{largest} rows"
    )


def _name(row: PromptRow, column: str, render: Render) -> str:
    made = ["value", _value(row, column)] if column else ["text", render(row.prompt)]
    return _digest(canonical(made))


def _value(row: PromptRow, column: str) -> str | None:
    """A column's value as it is written; None where there is none."""
    value = row.columns.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    written = value if isinstance(value, str) else canonical(value)
    return written if written.strip() else None


def _content(row: PromptRow) -> str:
    return _digest(canonical([plain_text(row.prompt), dict(row.columns)]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
