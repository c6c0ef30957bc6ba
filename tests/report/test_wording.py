import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.report.wording import BARS, duration, number, plain_line, sparkline, time_left
from tests.report.runs import round_row, run


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (187, "3:07 min"), (3729, "1:02:09 h")],
)
def test_durations_read_naturally(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.000"), (0.1234, "0.123"), (0.00002, "2.0e-05"), (-1.5, "-1.500")],
)
def test_small_figures_do_not_read_as_zero(value: float | None, text: str) -> None:
    assert number(value) == text


def test_time_left_is_the_mean_round_times_the_rounds_to_come() -> None:
    rows = run(4)  # Five seconds a round; the evaluation before training does not count.
    assert time_left(rows, 10) == pytest.approx(30)
    assert time_left(rows, 10, elapsed=2) == pytest.approx(28)
    assert time_left(rows, 10, elapsed=900) == pytest.approx(25)
    assert time_left(rows, 4) == pytest.approx(0, abs=5)
    assert time_left(run(0), 10) is None


@given(st.lists(st.none() | st.floats(-1e6, 1e6)))
def test_a_sparkline_has_one_bar_for_each_known_value_and_orders_them(
    values: list[float | None],
) -> None:
    known = [value for value in values if value is not None][-16:]
    line = sparkline(values)
    assert len(line) == (len(known) if len(known) > 1 else 0)
    heights = [BARS.index(bar) for bar in line]
    for (low, a), (high, b) in zip(
        zip(known, heights, strict=False), zip(known[1:], heights[1:], strict=False), strict=False
    ):
        assert (a <= b) if low <= high else (a >= b)


def test_a_round_is_one_ascii_line_whatever_its_reason() -> None:
    row = round_row(3, applied=False, reason="two\nlines", reward=None)
    line = plain_line(row, [*run(2), row], 10)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert "skipped: two lines" in line
