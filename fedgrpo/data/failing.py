"""Rows that cannot be used: each counts nothing, and too many of them stop who trains on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedgrpo.ground.errors import DataError

NAMED = 3
"""Rows that are named one by one."""


def check_failing(failures: Sequence[DataError], total: int, most: float) -> None:
    """Refuse prompts of which too large a share cannot be used.

    Parameters
    ----------
    failures:
        One for each such row. It names the row by its number, and no value.
    total:
        All rows.
    most:
        ``data.max_failing``.

    Raises
    ------
    DataError
        With the first rows, and the cure for the first.
    """
    if len(failures) <= most * total and len(failures) < total:
        return
    if total == len(failures) == 1 or most == 0:
        raise failures[0]
    if total == len(failures):
        problem = f"none of {total} rows can be used; the first: {failures[0].problem}"
        raise DataError(problem, cure=failures[0].cure)
    first, *others = failures[:NAMED]
    more = f" ({len(failures)} rows in all)" if len(failures) > NAMED else ""
    named = "; ".join(error.problem for error in (first, *others))
    raise DataError(
        f"{len(failures)} of {total} rows cannot be used, more than data.max_failing = {most:g}: "
        f"{named}{more}",
        cure=f"{first.cure}; or raise data.max_failing to train without these rows",
    )


def failing_words(failures: Sequence[DataError]) -> Iterator[str]:
    """Name rows that are left out, the first ones by their numbers."""
    for error in failures[:NAMED]:
        yield f"{error.problem}: it counts nothing ({error.cure})"
    if more := len(failures[NAMED:]):
        yield f"{more} more rows cannot be used, and count nothing"
