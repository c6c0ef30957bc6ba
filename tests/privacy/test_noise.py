"""Noise is Gaussian, unpredictable and leaves no floating-point trace.

It cannot be seeded, so thresholds are where an honest generator fails less than once in 1e9 runs.
"""

import hashlib
import math
import os

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import add_noise, gaussian_noise

_SIGMAS = 6.5  # Two-sided tail 8e-11.
_DRAWS = 200_000


@pytest.mark.parametrize("std", [1e-3, 1.0, 37.0])
def test_first_four_moments_are_those_of_a_gaussian(std: float) -> None:
    noise = gaussian_noise(_DRAWS, std) / std
    root = math.sqrt(_DRAWS)
    assert abs(noise.mean()) < _SIGMAS / root
    assert abs((noise**2).mean() - 1) < _SIGMAS * math.sqrt(2) / root
    assert abs((noise**3).mean()) < _SIGMAS * math.sqrt(15) / root
    assert abs((noise**4).mean() - 3) < _SIGMAS * math.sqrt(96) / root


def test_distribution_is_normal_by_kolmogorov_and_smirnov() -> None:
    distance = stats.kstest(gaussian_noise(_DRAWS, 1.0), stats.norm.cdf).statistic
    # Dvoretzky, Kiefer, Wolfowitz and Massart: P(distance > t) <= 2 exp(-2 n t^2).
    assert distance < math.sqrt(math.log(2e10) / (2 * _DRAWS))


def test_tails_are_as_heavy_as_they_should_be() -> None:
    beyond = int((np.abs(gaussian_noise(1_000_000, 1.0)) > 4).sum())
    expected = 2e6 * stats.norm.sf(4)
    assert stats.poisson.cdf(beyond, expected) > 1e-10
    assert stats.poisson.sf(beyond, expected) > 1e-10


def test_two_draws_are_independent_of_each_other_and_within() -> None:
    first, second = gaussian_noise(_DRAWS, 1.0), gaussian_noise(_DRAWS, 1.0)
    pairs = [(first, second), (first[1:], first[:-1]), (first**2, second**2)]
    for left, right in pairs:
        assert abs(np.corrcoef(left, right)[0, 1]) < _SIGMAS / math.sqrt(_DRAWS - 1)


def test_every_draw_takes_a_fresh_key_of_the_operating_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or bytes(range(count)))
    first, second = gaussian_noise(8, 1.0), gaussian_noise(8, 1.0)
    assert asked == [32, 32]
    np.testing.assert_array_equal(first, second)  # Same key: there is no other randomness.


def test_numpys_generator_is_neither_used_nor_disturbed() -> None:
    np.random.seed(7)
    before = hashlib.sha256(repr(np.random.get_state()).encode()).digest()
    first = gaussian_noise(16, 1.0)
    assert hashlib.sha256(repr(np.random.get_state()).encode()).digest() == before
    np.random.seed(7)
    assert not np.array_equal(first, gaussian_noise(16, 1.0))


def test_zero_noise_is_zero_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: pytest.fail("drew randomness"))
    np.testing.assert_array_equal(gaussian_noise(3, 0.0), np.zeros(3))
    assert gaussian_noise(0, 1.0).shape == (0,)


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_impossible_noise_is_refused_with_its_value(std: float) -> None:
    with pytest.raises(PrivacyError, match=f"= {std}"):
        gaussian_noise(3, std)


def test_negative_size_is_refused() -> None:
    with pytest.raises(PrivacyError, match="size = -1"):
        gaussian_noise(-1, 1.0)


@settings(deadline=None)
@given(std=st.floats(1e-6, 1e6), value=st.floats(-1e3, 1e3))
def test_noised_values_lie_on_a_grid_that_any_float_sum_reaches(std: float, value: float) -> None:
    noised = add_noise(np.full(64, value), std)
    step = 2.0 ** (math.floor(math.log2(std)) - 6)
    assert std / 128 < step <= std / 64
    np.testing.assert_array_equal(noised / step, np.rint(noised / step))


def test_rounding_to_the_grid_neither_shifts_nor_widens_the_noise() -> None:
    value, std = 0.123456789, 0.7
    noise = add_noise(np.full(_DRAWS, value), std) - value
    assert abs(noise.mean()) < _SIGMAS * std / math.sqrt(_DRAWS)
    assert abs(noise.var() / std**2 - 1) < 2e-5 + _SIGMAS * math.sqrt(2 / _DRAWS)


def test_no_noise_leaves_the_vector_as_it_is_and_unshared() -> None:
    vector = np.array([0.1, -0.2])
    noised = add_noise(vector, 0.0)
    np.testing.assert_array_equal(noised, vector)
    assert not np.shares_memory(noised, vector)


@pytest.mark.parametrize("bad", [np.array([1.0, np.nan]), np.array([np.inf]), np.ones((2, 2))])
def test_what_is_no_finite_vector_cannot_be_hidden(bad: np.ndarray) -> None:
    with pytest.raises(PrivacyError, match="not a finite vector"):
        add_noise(bad, 1.0)


def test_inverse_distribution_is_as_exact_as_the_error_bound_assumes() -> None:
    exponents = np.random.default_rng(0).uniform(1, 80, 300)
    with mpmath.workdps(40):
        for uniform in map(float, 2.0**-exponents):
            value = mpmath.mpf(float(ndtri(uniform)))
            exact = value
            for _ in range(2):
                exact -= (mpmath.ncdf(exact) - mpmath.mpf(uniform)) / mpmath.npdf(exact)
            assert abs((exact - value) / exact) < 2.0**-50
