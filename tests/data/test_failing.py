"""A few rows that cannot be used are named and left out; too many of them stop."""

from __future__ import annotations

import pytest

from fedgrpo.data.failing import NAMED, check_failing, failing_words
from fedgrpo.ground.errors import DataError


def failures(count: int) -> list[DataError]:
    return [DataError(f"row {i} is bad", cure=f"mend {i}") for i in range(1, count + 1)]


@pytest.mark.parametrize(("count", "total", "most"), [(0, 10, 0.0), (5, 100, 0.05), (9, 10, 1.0)])
def test_few_rows_are_left_out(count: int, total: int, most: float) -> None:
    check_failing(failures(count), total, most)


@pytest.mark.parametrize(
    ("count", "total", "most", "words"),
    [
        (6, 100, 0.05, ["6 of 100 rows", "data.max_failing = 0.05", "row 1 is bad", "mend 1"]),
        (1, 9, 0.0, ["row 1 is bad", "mend 1"]),
        (3, 3, 1.0, ["none of 3 rows", "row 1 is bad", "mend 1"]),
    ],
)
def test_too_many_stop_with_the_first_ones_and_a_cure(
    count: int, total: int, most: float, words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        check_failing(failures(count), total, most)
    assert all(word in str(caught.value) for word in words)


def test_the_first_ones_are_named_and_the_others_counted() -> None:
    *named, more = failing_words(failures(NAMED + 4))
    assert len(named) == NAMED
    assert named[0] == "row 1 is bad: it counts nothing (mend 1)"
    assert more.startswith("4 more rows")
