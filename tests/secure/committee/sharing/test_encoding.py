"""Guarantees of offset binary: order kept, norm never raised, sums decoded exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.sharing.encoding import Encoding, decode_sum, encode

norms = st.floats(1e-6, 1e6)
lengths = st.integers(1, 40)


def clipped(values: np.ndarray, norm: float) -> np.ndarray:
    return values * min(1.0, norm / max(float(np.linalg.norm(values)), 1e-300))


@given(norms, lengths, st.integers(6, 24), st.data())
def test_encoded_norm_never_exceeds_the_clipping_norm(
    norm: float, length: int, bits: int, data: st.DataObject
) -> None:
    encoding = Encoding(norm, length, bits)
    values = data.draw(arrays(np.float64, length, elements=st.floats(-2, 2))) * norm
    codes = encode(clipped(values, norm), encoding)
    assert codes.dtype == np.uint32
    assert int(codes.max()) < 2**bits
    # In exact integers: no float may hide an excess.
    steps = [int(code) - encoding.offset for code in codes]
    assert sum(step * step for step in steps) <= encoding.sensitivity**2


@pytest.mark.parametrize("length", [1, 2, 4, 9, 10_000, 10_001, 250_000])
@pytest.mark.parametrize("norm", [1.0, 0.3, 17.7])
def test_norm_holds_where_every_coordinate_rounds_up(length: int, norm: float) -> None:
    encoding = Encoding(norm, length)
    most = (norm - encoding.slack) / math.sqrt(length)
    half = (math.floor(most / encoding.step - 0.5) + 0.5) * encoding.step
    for level in (half, np.nextafter(half, 9e9), norm / math.sqrt(length)):
        codes = encode(np.full(length, level), encoding).astype(np.int64)
        assert int(((codes - encoding.offset) ** 2).sum()) <= encoding.sensitivity**2


@given(norms, lengths, st.data())
def test_error_is_at_most_the_shrinking_and_half_a_step(
    norm: float, length: int, data: st.DataObject
) -> None:
    encoding = Encoding(norm, length)
    values = clipped(data.draw(arrays(np.float64, length, elements=st.floats(-1, 1))) * norm, norm)
    codes = encode(values, encoding).astype(np.uint64)
    width = encoding.output_bits(1, 0)
    error = np.linalg.norm(decode_sum(codes % 2**width, 1, width, encoding) - values)
    # Shrinking by the slack, rounding by the slack; one more step where +R saturates to R - step.
    assert error <= (2 * encoding.slack + encoding.step) * (1 + 1e-6) + 1e-8 * norm


@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_codes_are_in_the_order_of_the_values(first: float, second: float) -> None:
    codes = encode(np.array([first, second]), Encoding(1.0, 2))
    if first <= second:
        assert codes[0] <= codes[1]
    assert encode(np.zeros(2), Encoding(1.0, 2)).tolist() == [2**15, 2**15]


@given(st.integers(2, 24), st.integers(1, 40), st.integers(0, 10**7), norms, st.data())
def test_sums_with_noise_decode_exactly_and_never_wrap(
    bits: int, kept: int, noise: int, norm: float, data: st.DataObject
) -> None:
    encoding = Encoding(norm, 1, bits)
    width = encoding.output_bits(kept, noise)
    codes = st.one_of(st.sampled_from([0, 2**bits - 1]), st.integers(0, 2**bits - 1))
    values = data.draw(st.lists(codes, min_size=kept, max_size=kept))
    added = data.draw(st.one_of(st.sampled_from([-noise, noise]), st.integers(-noise, noise)))
    opened = np.array([(sum(values) + added) % 2**width], dtype=np.uint64)
    exact = sum(value - encoding.offset for value in values) + added
    assert decode_sum(opened, kept, width, encoding) == exact * encoding.step


def test_range_is_the_norm_for_short_vectors_and_a_quarter_for_long_ones() -> None:
    short, long = Encoding(2.0, 10_000), Encoding(2.0, 1_000_000)
    assert short.sensitivity == 2**15
    assert short.slack / 2.0 == pytest.approx(0.0015, rel=0.02)
    assert long.sensitivity == 2**17
    assert long.slack / 2.0 == pytest.approx(0.0038, rel=0.01)


def test_a_coordinate_beyond_the_long_range_saturates_and_only_shrinks() -> None:
    encoding = Encoding(1.0, 20_000)
    values = np.zeros(20_000)
    values[:2] = 0.7, -0.7
    codes = encode(values, encoding)
    assert codes[:3].tolist() == [2**16 - 1, 0, 2**15]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused(poison: float) -> None:
    with pytest.raises(ProtocolError, match="1 of 3 values"):
        encode(np.array([0.0, poison, 0.1]), Encoding(1.0, 3))


def test_a_vector_outside_the_range_is_refused_with_its_norm() -> None:
    with pytest.raises(ProtocolError, match=r"norm 1\.5 is outside the range of clipping norm 1"):
        encode(np.array([1.5, 0.0]), Encoding(1.0, 2))
    with pytest.raises(ProtocolError, match="shape"):
        encode(np.zeros(3), Encoding(1.0, 2))
    with pytest.raises(ProtocolError, match="outside the range of 17 bits"):
        decode_sum(np.array([1 << 17], dtype=np.uint64), 1, 17, Encoding(1.0, 1))


@pytest.mark.parametrize(
    ("norm", "length", "bits"),
    [(0.0, 1, 16), (math.nan, 1, 16), (1.0, 0, 16), (1.0, 1, 1), (1.0, 1, 25), (1.0, 10_000, 7)],
)
def test_encodings_that_cannot_hold_the_guarantee_are_refused(
    norm: float, length: int, bits: int
) -> None:
    with pytest.raises(ProtocolError, match="bits"):
        Encoding(norm, length, bits)
