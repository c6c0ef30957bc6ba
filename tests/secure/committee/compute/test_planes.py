"""Bit planes hold integers without loss."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.secure.committee.compute.planes import join_planes, lane_mask, slice_planes, words_for


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 2**32))
def test_slicing_and_joining_give_integers_back(dimension: int, bits: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**64, (3, dimension), np.uint64)
    values >>= np.uint64(64 - bits)
    planes = slice_planes(values, bits)
    assert planes.shape == (3, bits, words_for(dimension))
    np.testing.assert_array_equal(join_planes(planes, dimension), values)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=100))
def test_negative_integers_are_in_twos_complement(values: list[int]) -> None:
    planes = slice_planes(np.array(values), 50)
    expected = [value % 2**50 for value in values]
    np.testing.assert_array_equal(join_planes(planes, len(values)), np.array(expected, np.uint64))


@given(st.integers(1, 200))
def test_lanes_beyond_the_dimension_are_masked(dimension: int) -> None:
    lanes = np.unpackbits(lane_mask(dimension).view(np.uint8), bitorder="little")
    assert lanes[:dimension].all()
    assert not lanes[dimension:].any()
