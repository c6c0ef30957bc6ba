"""The lower bound on epsilon is the paper's, and is reached where it can be."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy.audit import audit, epsilon_lower_bound


def test_perfect_guesses_are_bounded_by_their_number() -> None:
    # r right guesses of r refute eps if (e^eps / (1 + e^eps))^r < 0.05.
    bias = 0.05 ** (1 / 100)
    expected = math.log(bias / (1 - bias))
    found = epsilon_lower_bound(100, 100, 100, delta=0.0)
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_bound_follows_the_papers_procedure() -> None:
    """The p-value is written out as in the paper's appendix, term by term."""

    def p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
        q = 1 / (1 + math.exp(-epsilon))
        beta, alpha, total = binom.sf(v - 1, r, q), 0.0, 0.0
        for i in range(1, v + 1):
            total += binom.pmf(v - i, r, q)
            alpha = max(alpha, total / i)
        return float(min(1.0, beta + alpha * delta * 2 * m))

    for m, r, v, delta in ((1000, 100, 80, 1e-5), (200, 200, 150, 1e-4), (50, 10, 10, 1e-3)):
        found = epsilon_lower_bound(m, r, v, delta=delta)
        assert p_value(m, r, v, found, delta) == pytest.approx(0.05, rel=1e-3)


def test_coin_flips_bound_nothing_and_delta_weakens_the_bound() -> None:
    assert epsilon_lower_bound(100, 100, 52, delta=0.0) == 0.0
    assert epsilon_lower_bound(100, 100, 90, delta=1e-3) < epsilon_lower_bound(
        100, 100, 90, delta=0.0
    )


def test_randomised_response_is_bounded_by_its_own_epsilon_and_nearly_reached() -> None:
    """An attack whose epsilon is known exactly: each coin is answered truly with e^2/(1 + e^2)."""
    rng = np.random.default_rng(1)

    def respond(included: np.ndarray) -> np.ndarray:
        lies = rng.random(included.size) > 1 / (1 + math.exp(-2.0))
        return (included ^ lies).astype(float) + rng.random(included.size) / 9

    found = audit(respond, 20_000, 10_000, delta=0.0, rng=rng, confidence=0.999)
    assert 1.8 < found.epsilon < 2.0


@pytest.mark.parametrize("guesses", [0, 3, 12])
def test_impossible_numbers_of_guesses_are_refused(guesses: int) -> None:
    with pytest.raises(PrivacyError, match=f"{guesses} guesses about 10 canaries"):
        audit(lambda included: np.zeros(10), 10, guesses, delta=0.0, rng=np.random.default_rng(0))
