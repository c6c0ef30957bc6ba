"""Copies of a unit and replaced units cost what independent computations say, and never less."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from fedgrpo.privacy import Mechanism, compose, epsilon_gaussian, epsilon_subsampled, round_cost
from fedgrpo.privacy.accounting.mixtures import Pair, compose_pairs
from fedgrpo.privacy.accounting.neighbours import epsilon_of_copies, epsilon_of_replacement
from fedgrpo.settings import Settings

DELTA = 1e-5
Density = Callable[[np.ndarray], np.ndarray]


def on_the_grid(pair: Pair, times: int) -> float:
    curves = compose_pairs([(pair, times)], DELTA)
    assert curves is not None
    return max(curve.epsilon(DELTA) for curve in curves)


def default_run() -> list[Mechanism]:
    cost = round_cost(Settings())
    assert cost is not None
    return [cost] * Settings().rounds


def test_figures_of_the_default_run_are_the_known_ones() -> None:
    run = default_run()
    assert round(compose(run, DELTA), 2) == 0.58
    shared = [epsilon_of_copies(Counter(run), m, DELTA, shared=True) for m in (2, 5, 10)]
    own = [epsilon_of_copies(Counter(run), m, DELTA, shared=False) for m in (2, 5, 10)]
    assert [round(epsilon, 1) for epsilon in shared] == [1.2, 3.2, 6.5]
    assert [round(epsilon, 2) for epsilon in own] == [0.70, 0.93, 1.19]


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate", "times"), [(1.0, 0.012, 24), (0.7, 0.032, 56)])
def test_one_unit_costs_what_opacus_says(noise: float, rate: float, times: int) -> None:
    pair = Pair(noise, ((1 - rate, 0.0), (rate, 1.0)), ((1.0, 0.0),))
    stated = epsilon_subsampled(noise, rate, times, DELTA)
    # Opacus adds 0.01 for its own error.
    assert stated - 0.011 < on_the_grid(pair, times) < stated + 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "copies", "times"), [(8.0, 1, 50), (6.0, 2, 10), (20.0, 5, 7)])
def test_without_sampling_the_grid_agrees_with_the_closed_form(
    noise: float, copies: int, times: int
) -> None:
    pair = Pair(noise, ((1.0, float(copies)),), ((1.0, 0.0),))
    exact = epsilon_gaussian(noise / copies, times, DELTA)
    assert exact <= on_the_grid(pair, times) < exact + 0.011
    whole = {Mechanism(noise): times}
    assert epsilon_of_copies(whole, copies, DELTA, shared=True) == pytest.approx(exact)
    assert epsilon_of_replacement(whole, DELTA) == pytest.approx(
        epsilon_gaussian(noise / 2, times, DELTA)
    )


def stick(upper: Density, lower: Density, epsilon: float, reach: float) -> float:
    """Hockey-stick divergence by a fine sum."""
    x, cell = np.linspace(-reach, reach, 10**6, retstep=True)
    return float(np.maximum(0.0, upper(x) - math.exp(epsilon) * lower(x)).sum() * cell)


def check_single(upper: Density, lower: Density, epsilon: float, reach: float) -> None:
    """Epsilon is the one of the worse direction, up to the grid's step."""
    given = max(stick(upper, lower, epsilon, reach), stick(lower, upper, epsilon, reach))
    less = epsilon - 2e-3
    missed = max(stick(upper, lower, less, reach), stick(lower, upper, less, reach))
    assert given <= DELTA < missed


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate", "copies"), [(1.0, 0.1, 3), (2.0, 0.5, 5)])
def test_one_release_of_copies_by_integration(noise: float, rate: float, copies: int) -> None:
    def sampled(x: np.ndarray) -> np.ndarray:
        counts = range(copies + 1)
        parts = [binom.pmf(k, copies, rate) * norm.pdf(x, k, noise) for k in counts]
        return np.sum(parts, axis=0)

    epsilon = epsilon_of_copies({Mechanism(noise, rate): 1}, copies, DELTA, shared=True)
    check_single(sampled, lambda x: norm.pdf(x, 0, noise), epsilon, 12 * noise + copies)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (2.0, 0.5)])
def test_one_release_with_a_replaced_unit_by_integration(noise: float, rate: float) -> None:
    def with_one(mean: float) -> Density:
        return lambda x: (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, mean, noise)

    epsilon = epsilon_of_replacement({Mechanism(noise, rate): 1}, DELTA)
    check_single(with_one(1.0), with_one(-1.0), epsilon, 12 * noise + 1)


PLANE = np.stack(np.meshgrid(*[np.linspace(-9, 9, 361)] * 2), axis=-1)
CELL = (18 / 360) ** 2
SHIFTS = st.tuples(st.floats(0, 1), st.floats(0, 2 * math.pi))


def at(shift: tuple[float, float]) -> np.ndarray:
    length, angle = shift
    return length * np.array([math.cos(angle), math.sin(angle)])


def density(parts: list[tuple[float, np.ndarray]]) -> np.ndarray:
    """Of a mixture of standard normals in the plane."""
    total = np.zeros(PLANE.shape[:2])
    for weight, mean in parts:
        total += weight * np.exp(-((PLANE - mean) ** 2).sum(axis=-1) / 2) / (2 * math.pi)
    return total


def divergence(upper: np.ndarray, lower: np.ndarray, ratio: float) -> float:
    return float(np.maximum(0.0, upper - ratio * lower).sum() * CELL)


@pytest.mark.slow
@hypothesis_settings(deadline=None, max_examples=25)
@given(first=SHIFTS, second=SHIFTS, rate=st.floats(0.02, 0.9), ratio=st.floats(0.3, 6))
def test_no_directions_of_two_units_beat_those_on_a_line(
    first: tuple[float, float], second: tuple[float, float], rate: float, ratio: float
) -> None:
    def copies(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        one = rate * (1 - rate)
        return density([((1 - rate) ** 2, 0 * a), (one, a), (one, b), (rate**2, a + b)])

    def replaced(a: np.ndarray) -> np.ndarray:
        return density([(1 - rate, 0 * a), (rate, a)])

    unit = np.array([1.0, 0.0])
    nothing = density([(1.0, 0 * unit)])
    a, b = at(first), at(second)
    worst, any_copies = copies(unit, unit), copies(a, b)
    assert divergence(any_copies, nothing, ratio) <= divergence(worst, nothing, ratio) + 1e-9
    assert divergence(nothing, any_copies, ratio) <= divergence(nothing, worst, ratio) + 1e-9
    bound = divergence(replaced(unit), replaced(-unit), ratio)
    assert divergence(replaced(a), replaced(b), ratio) <= bound + 1e-9


@pytest.mark.slow
def test_more_copies_cost_more_and_own_noise_costs_less() -> None:
    run = [Mechanism(1.2, 0.05)] * 10 + [Mechanism(2.0, 0.1)] * 5
    one, replaced = compose(run, DELTA), epsilon_of_replacement(Counter(run), DELTA)
    own = epsilon_of_copies(Counter(run), 3, DELTA, shared=False)
    shared = [epsilon_of_copies(Counter(run), m, DELTA, shared=True) for m in (2, 3)]
    assert one < own < shared[1]
    assert one < replaced < shared[0] < shared[1]
    assert epsilon_of_copies(Counter(run), 1, DELTA, shared=True) == one


@pytest.mark.slow
def test_limited_time_is_paid_for_at_every_client() -> None:
    run = [Mechanism(1.0, 0.05)] * 20
    for shared in (False, True):
        free = epsilon_of_copies(Counter(run), 2, DELTA, shared=shared)
        paid = epsilon_of_copies(Counter(run), 2, DELTA, shared=shared, limited=20)
        left = DELTA - (1 + math.exp(paid)) * 2 * 20e-12
        assert free < paid < free + 0.01
        assert epsilon_of_copies(Counter(run), 2, left, shared=shared) <= paid + 1e-6


def test_nothing_released_costs_nothing() -> None:
    assert epsilon_of_copies({}, 5, DELTA, shared=True) == 0
    assert epsilon_of_replacement({}, DELTA) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "delta"), [(0.02, DELTA), (1.0, 1e-14)])
def test_where_the_grid_is_no_bound_none_is_claimed(noise: float, delta: float) -> None:
    run = [Mechanism(noise, 0.1)] * 20
    assert epsilon_of_copies(Counter(run), 10, delta, shared=True) == math.inf
