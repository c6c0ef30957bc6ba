"""Time that is sized for most samples, not for all, is paid for out of delta."""

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from fedgrpo.privacy import Mechanism, compose, epsilon_gaussian, epsilon_subsampled
from fedgrpo.privacy.accounting.guarantees import OVERFLOW, prompt_epsilon
from fedgrpo.privacy.accounting.overflow import with_overflow
from fedgrpo.site import Entry, spent_epsilon


@hypothesis_settings(deadline=None)
@given(noise=st.floats(1.5, 30), releases=st.integers(1, 1000), exponent=st.floats(-6, -2))
def test_epsilon_is_the_least_at_what_it_leaves_of_delta(
    noise: float, releases: int, exponent: float
) -> None:
    delta = 10.0**exponent

    def cost(left: float) -> float:
        return epsilon_gaussian(noise, 1, left)

    def excess(epsilon: float) -> float:
        return cost(delta - (1 + math.exp(epsilon)) * releases * OVERFLOW) - epsilon

    found = with_overflow(cost, releases, delta)
    # The direct check: it is a solution, and hardly above the least one.
    assert excess(found) <= 1e-9
    low = cost(delta)
    least = low if excess(low) <= 0 else brentq(excess, low, found + 1e-9)
    assert least - 1e-9 <= found <= least + 2e-4


def test_shipped_figures_do_not_move() -> None:
    before = epsilon_subsampled(0.7, 0.032, 56, 1e-5)
    after = prompt_epsilon(0.7, 0.032, 56, 1e-5)
    assert f"{after:.2f}" == f"{before:.2f}" == "4.56"
    assert before < after < before + 3e-4


def test_beyond_what_delta_can_pay_for_the_bound_stays_finite_and_above() -> None:
    cost = epsilon_subsampled(0.3, 0.05, 30, 1e-5)
    assert math.exp(cost) * 30 * OVERFLOW > 1e-5
    found = prompt_epsilon(0.3, 0.05, 30, 1e-5)
    assert cost <= found == epsilon_subsampled(0.3, 0.05, 30, 1e-5 - 30 * OVERFLOW)


def test_nothing_is_promised_where_delta_is_below_the_probability() -> None:
    assert prompt_epsilon(1.0, 0.1, 20, 1e-11) == math.inf
    assert prompt_epsilon(1.0, 0.1, 0, 1e-11) == 0


def test_a_sites_account_counts_releases_of_prompts_and_torn_lines() -> None:
    prompt = Entry("", 0, 0, "", "prompt", 1.0, 0.1)
    torn = Entry("", 0, 0, "", "none", 1.0, 0.1, torn="ab")
    client, bare = Entry("", 0, 0, "", "client", 4.0, 1.0), Entry("", 0, 0, "", "none", 0.0, 1.0)
    entries = [prompt, torn, client, bare] * 8
    mechanisms = [Mechanism(1.0, 0.1)] * 16 + [Mechanism(2.0)] * 8
    expected = with_overflow(lambda left: compose(mechanisms, left), 16, 1e-6)
    assert spent_epsilon(entries, "prompt", 1e-6) == expected > compose(mechanisms, 1e-6)
    assert spent_epsilon([client] * 3, "client", 1e-6) == pytest.approx(
        epsilon_gaussian(4.0, 3, 1e-6)
    )


@pytest.mark.parametrize("unit", ["client", "none"])
def test_who_samples_nobody_pays_nothing(unit: str) -> None:
    entry = Entry("", 0, 0, "", unit, 4.0, 1.0)
    assert spent_epsilon([entry] * 3, "client", 1e-11) < math.inf
