"""Guarantees of fixed-point encoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure import decode_sum, encode, fraction_bits

bounds = st.floats(1e-9, 1e9)
LARGEST = 2**31 - 1


@given(st.integers(1, 1000), bounds)
def test_fraction_bits_are_the_most_that_never_overflow(members: int, bound: float) -> None:
    def largest_sum(bits: int) -> int:
        return members * round(bound * 2.0**bits)

    bits = fraction_bits(members, bound)
    assert largest_sum(bits) <= LARGEST < largest_sum(bits + 1)


def test_fraction_bits_have_known_values() -> None:
    assert fraction_bits(4, 1.0) == 28
    assert fraction_bits(3, 1.0) == 29
    assert fraction_bits(1, 2.0**40) == -10


@given(st.integers(1, 9), bounds, st.data())
def test_sum_of_encoded_vectors_is_within_the_stated_error(
    members: int, bound: float, data: st.DataObject
) -> None:
    values = data.draw(arrays(np.float64, (members, 4), elements=st.floats(-bound, bound)))
    bits = fraction_bits(members, bound)
    total = np.sum([encode(row, bits, bound) for row in values], axis=0, dtype=np.uint32)
    error = np.abs(decode_sum(total, bits) - values.sum(axis=0))
    assert (error <= members * 2.0 ** -(bits + 1) * (1 + 1e-6)).all()


@given(st.integers(1, 9), bounds, st.data())
def test_values_beyond_the_bound_saturate_and_never_wrap_the_sum(
    members: int, bound: float, data: st.DataObject
) -> None:
    bits = fraction_bits(members, bound)
    wild = data.draw(
        arrays(np.float64, 3, elements=st.floats(allow_nan=False, allow_infinity=False))
    )
    encoded = encode(wild, bits, bound)
    np.testing.assert_array_equal(encoded, encode(np.clip(wild, -bound, bound), bits, bound))
    extreme = encode(np.array([1e300, -1e300]), bits, bound)
    total = np.sum([extreme] * members, axis=0, dtype=np.uint32)
    np.testing.assert_allclose(
        decode_sum(total, bits), [members * bound, -members * bound], rtol=1e-6 + 2.0**-bits / bound
    )


@given(arrays(np.int32, 5), st.integers(-5, 40))
def test_decoding_inverts_encoding_on_the_grid(grid: NDArray[np.int32], bits: int) -> None:
    grid = np.maximum(grid, -LARGEST)
    values = np.ldexp(grid.astype(np.float64), -bits)
    bound = float(np.ldexp(float(LARGEST), -bits))
    encoded = encode(values, bits, bound)
    assert encoded.dtype == np.uint32
    np.testing.assert_array_equal(encoded.view(np.int32), grid)
    np.testing.assert_array_equal(decode_sum(encoded, bits), values)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_not_saturated(poison: float) -> None:
    with pytest.raises(ProtocolError, match="1 of 3 values"):
        encode(np.array([0.0, poison, 1.0]), 20, 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(ProtocolError, match="bound"):
        fraction_bits(3, bound)
    with pytest.raises(ProtocolError, match="bound"):
        encode(np.zeros(2), 10, bound)


def test_bits_that_do_not_fit_and_empty_sums_are_refused() -> None:
    with pytest.raises(ProtocolError, match="31 fraction bits"):
        encode(np.zeros(2), 31, 1.0)
    with pytest.raises(ProtocolError, match="0 vectors"):
        fraction_bits(0, 1.0)
