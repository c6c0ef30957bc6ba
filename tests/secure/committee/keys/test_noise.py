"""Guarantees of the committee's noise: its distribution, its determinism, what it is worth."""

from __future__ import annotations

import hashlib
import math

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.secure.committee.keys import noise as room
from fedgrpo.secure.committee.keys.noise import (
    MAX_SIGMA,
    discrete_gaussian,
    effective_noise,
    largest_noise,
    share_sigma,
)

KEY = hashlib.sha256(b"a key of the tests").digest()
DRAWS = 400_000
sigmas = st.floats(1.0, 1e6)


@pytest.mark.parametrize("sigma", [1.0, 2.5, 9.0, 1024.0])
def test_frequencies_are_those_of_the_discrete_gaussian(sigma: float) -> None:
    draws = discrete_gaussian(KEY, sigma, DRAWS)
    reach = math.ceil(3 * sigma)
    points = np.arange(-20 * reach, 20 * reach + 1)
    weights = np.exp(-(points.astype(float) ** 2) / (2 * sigma**2))
    # Bins of about a quarter of a scale, the tails in two.
    edges = np.arange(-reach, reach, max(1, round(sigma / 4)))
    expected = np.bincount(np.digitize(points, edges), weights) / weights.sum() * DRAWS
    observed = np.bincount(np.digitize(draws, edges), minlength=len(expected))
    assert expected.min() > 5
    assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1025.0, 88_473.6, 3e7])
def test_wide_noise_has_the_gaussian_s_distribution(sigma: float) -> None:
    # So wide that the continuous distribution is the same to 1e-3 of a standard error.
    draws = discrete_gaussian(KEY, sigma, DRAWS)
    assert stats.kstest(draws / sigma, "norm").pvalue > 1e-3
    # No lattice of the two parts shows in the low digits.
    for modulus in (2, 3, math.isqrt(int(sigma))):
        counts = np.bincount(draws % modulus, minlength=modulus)
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [1.0, 3.3, 40.0])
def test_thresholds_are_exact_to_their_last_bit(sigma: float) -> None:
    table = room._table(sigma)
    cut = math.ceil(12 * sigma)
    with mpmath.workprec(400):
        weights = [
            mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(sigma) ** 2)) for x in range(cut + 1)
        ]
        total = weights[0] + 2 * mpmath.fsum(weights[1:])
        cumulative = weights[0]
        for x in range(cut):
            stored = (int(table.high[x]) << 63) + int(table.low[x])
            assert 0 <= cumulative / total * 2**127 - stored < 1 + 1e-9
            cumulative += 2 * weights[x + 1]


def test_two_parts_make_the_discrete_gaussian_to_429_bits() -> None:
    sigma = 1100.0
    factor, coarse, fine = room._split(sigma)
    assert math.isclose(math.hypot(factor * coarse, fine), sigma, rel_tol=1e-15)
    with mpmath.workprec(900):

        def shift_sum(v: int) -> mpmath.mpf:
            spread = (mpmath.mpf(coarse) * fine / sigma) ** 2
            centre = mpmath.mpf(v) * factor * mpmath.mpf(coarse) ** 2 / mpmath.mpf(sigma) ** 2
            near = int(mpmath.nint(centre))
            return mpmath.fsum(
                mpmath.exp(-((y - centre) ** 2) / (2 * spread))
                for y in range(near - 140, near + 141)
            )

        base = shift_sum(0)
        for v in (1, 7, factor // 2, 500, 4000):
            assert abs(shift_sum(v) / base - 1) < mpmath.mpf(2) ** -429


@given(sigmas)
def test_no_draw_is_beyond_the_stated_largest(sigma: float) -> None:
    assert 12 * sigma <= largest_noise(sigma) <= 14 * sigma + 14
    extreme = np.full(8, 2**32 - 1, dtype=np.uint32)
    if sigma <= 1024:
        assert np.abs(room._look_up(extreme, sigma)).max() == largest_noise(sigma)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from([1.0, 4.0, 77.7]))
def test_look_up_counts_thresholds_not_above_the_number(high: int, low: int, sigma: float) -> None:
    table = room._table(sigma)
    thresholds = [int(h) << 63 | int(w) for h, w in zip(table.high, table.low, strict=True)]
    candidates = [(high, low)]
    # Ties of the high word, just below, on and just above a threshold.
    at = low % len(thresholds)
    for step in (-1, 0, 1):
        number = min(max(thresholds[at] + step, 0), 2**127 - 1)
        candidates.append((number >> 63, (number & (1 << 63) - 1) << 1 | (low & 1)))
    words = np.array([h for h, _ in candidates] + [w for _, w in candidates], dtype="<u8").view(
        "<u4"
    )
    for (h, w), draw in zip(candidates, room._look_up(words, sigma), strict=True):
        magnitude = sum(t <= (h << 63 | w >> 1) for t in thresholds)
        assert draw == (-magnitude if w & 1 else magnitude)


def test_same_key_same_noise_on_every_machine() -> None:
    # A changed digest is a changed protocol: members of different versions would disagree.
    digest = hashlib.sha256()
    for sigma in (4.0, 700.5, 44_236.8):
        digest.update(discrete_gaussian(KEY, sigma, 5000).astype("<i8").tobytes())
    assert digest.hexdigest() == "b386a83866242d2d97a9236ba77d47d003b1c57bcab484feb8d78f93e78b4daf"


def test_different_keys_give_unrelated_noise() -> None:
    first = discrete_gaussian(KEY, 50.0, 50_000)
    second = discrete_gaussian(hashlib.sha256(KEY).digest(), 50.0, 50_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(50_000)


@given(st.floats(0, 100))
def test_one_curious_member_faces_half_the_noise_multiplier(noise_multiplier: float) -> None:
    left = effective_noise(noise_multiplier)
    assert left.outsider == noise_multiplier
    assert left.member == noise_multiplier / 2


def test_four_shares_have_the_stated_spread_to_outsiders_and_to_a_member() -> None:
    sigma = 2.7 * 2**15
    keys = [hashlib.sha256(bytes([m])).digest() for m in range(4)]
    shares = np.stack([discrete_gaussian(key, share_sigma(sigma), 200_000) for key in keys])
    tolerance = 5 / math.sqrt(2 * 200_000)
    outsider, member = effective_noise(sigma).outsider, effective_noise(sigma).member
    assert shares.sum(axis=0).std() == pytest.approx(outsider, rel=tolerance)
    for m in range(4):
        known = np.delete(shares, m, axis=0).sum(axis=0)
        assert (shares.sum(axis=0) - known).std() == pytest.approx(member, rel=tolerance)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.99, math.nan, math.inf, 2 * MAX_SIGMA])
def test_scales_that_cannot_be_drawn_are_refused(sigma: float) -> None:
    with pytest.raises(PrivacyError, match="scale"):
        discrete_gaussian(KEY, sigma, 1)
    with pytest.raises(PrivacyError, match="scale"):
        largest_noise(sigma)


@pytest.mark.parametrize("sigma", [0.0, 7.9, math.nan])
def test_noise_too_coarse_to_sum_to_a_gaussian_is_refused(sigma: float) -> None:
    with pytest.raises(PrivacyError, match="too coarse"):
        share_sigma(sigma)


@pytest.mark.parametrize("noise_multiplier", [-0.1, math.nan, math.inf])
def test_a_multiplier_that_is_none_is_refused(noise_multiplier: float) -> None:
    with pytest.raises(PrivacyError, match="noise multiplier"):
        effective_noise(noise_multiplier)
