"""Contributions on a grid: bounded, exact, in any order."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy.grid import GRID_BITS, MOST_UNITS, SLACK, GridSum, grid_sum

ROWS = hnp.arrays(np.float64, (6, 5), elements=st.floats(-1e6, 1e6))
HALF = 1 << (GRID_BITS - 1)


def exact_norm_squared(direction: np.ndarray) -> int:
    return sum(int(step) ** 2 for step in direction)


@given(row=hnp.arrays(np.float64, 5, elements=st.floats(width=64)), norm=st.floats(1e-6, 1e6))
def test_one_unit_is_at_most_c_long_in_whole_numbers(row: np.ndarray, norm: float) -> None:
    share = GridSum.of_unit(row, np.full(4, 7.0), norm)
    assert exact_norm_squared(share.direction) <= 1 << (2 * GRID_BITS)
    assert np.abs(share.metrics).max() <= HALF
    assert abs(share.indicator) <= HALF
    # What is not finite says nothing at all.
    with np.errstate(over="ignore"):
        assert share.units == int(np.isfinite(np.linalg.norm(row)))
    assert share.units or not (share.direction.any() or share.metrics.any() or share.indicator)


@given(rows=ROWS, order=st.permutations(range(6)), gone=st.integers(0, 5))
def test_a_unit_adds_exactly_its_own_numbers_in_any_order(
    rows: np.ndarray, order: list[int], gone: int
) -> None:
    shares = [GridSum.of_unit(row, row[:4], 0.7) for row in rows]
    nothing = GridSum.nothing(5, 4)
    total, shuffled = sum(shares, nothing), sum((shares[i] for i in order), nothing)
    without = sum((shares[i] for i in order if i != gone), nothing)
    for name in ("direction", "metrics", "indicator", "units"):
        whole, again, part, own = (
            np.asarray(getattr(s, name)) for s in (total, shuffled, without, shares[gone])
        )
        assert np.array_equal(whole, again)
        assert np.array_equal(whole - part, own)


@given(row=hnp.arrays(np.float64, 5, elements=st.floats(-1, 1)))
def test_rounding_goes_towards_zero_and_is_less_than_a_step(row: np.ndarray) -> None:
    share = GridSum.of_unit(row, np.zeros(4), 100.0)
    exact = row / 100.0
    assert (np.abs(share.floats()[0]) <= np.abs(exact) + 2.0**-60).all()
    assert (np.abs(share.floats()[0] - exact) < 2.0**-GRID_BITS * (1 + 1e-3)).all()


def test_a_clipped_unit_keeps_its_direction_and_nearly_all_of_c() -> None:
    share = GridSum.of_unit(np.array([30.0, 40.0]), np.full(4, np.nan), 0.5)
    direction, metrics, indicator = share.floats()
    assert direction == pytest.approx(np.array([0.6, 0.8]), rel=2 * SLACK)
    assert np.linalg.norm(direction) > 1 - 2 * SLACK
    assert not metrics.any()
    assert indicator == -0.5
    assert GridSum.of_unit(np.array([0.3, 0.4]), np.zeros(4), 0.5).indicator == HALF
    assert GridSum.of_unit(np.zeros(2), np.zeros(4), 0.5).indicator == 0


def test_norms_about_the_largest_float_do_no_harm() -> None:
    for size in (1e150, 1e300, 1.7e308):
        share = GridSum.of_unit(np.full(5, size), np.zeros(4), 1.0)
        assert exact_norm_squared(share.direction) <= 1 << (2 * GRID_BITS)


def test_no_more_units_than_an_int64_holds() -> None:
    many = GridSum(np.zeros(1, np.int64), np.zeros(4, np.int64), 0, MOST_UNITS)
    with pytest.raises(PrivacyError, match="does not fit into 64 bits"):
        many + GridSum.of_unit(np.zeros(1), np.zeros(4), 1.0)
    assert MOST_UNITS * (1 << GRID_BITS) < 2**63


def test_sums_grow_unit_by_unit() -> None:
    rows = np.eye(3)
    sums = [grid_sum(rows[:n], np.ones((n, 4)), 2.0) for n in range(4)]
    assert [total.units for total in sums] == [0, 1, 2, 3]
    for before, after in pairwise(sums):
        assert np.count_nonzero(after.direction - before.direction) == 1
