"""The audit never exceeds what is stated for sound noise, and exceeds it for broken noise."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from fedgrpo.errors import PrivacyError
from fedgrpo.privacy import audit as module
from fedgrpo.privacy import worst_epsilon
from fedgrpo.privacy.audit import (
    Mechanism,
    audit,
    client_canaries,
    epsilon_lower_bound,
    prompt_canaries,
)
from fedgrpo.settings import Settings

CANARIES, GUESSES = 400, 200


def make(unit: str, noise: str, multiplier: float, rounds: int = 4, prompts: int = 200) -> Settings:
    holders = 12 if unit == "prompt" else CANARIES + 2
    return Settings.from_mapping(
        {
            "rounds": rounds,
            "grpo": {"prompts_per_step": prompts},
            "data": {"min_prompts": CANARIES, "prompts_per_holder": CANARIES},
            "privacy": {"unit": unit, "noise": noise, "noise_multiplier": multiplier},
            "aggregation": {"protocol": "plain"},
            "robust": {"trim": 2},
            "federation": {"min_holders": holders},
        }
    )


def mechanism(settings: Settings) -> Mechanism:
    canaries = prompt_canaries if settings.privacy.unit == "prompt" else client_canaries
    return canaries(settings)


# All are stated at an epsilon of about 1; of sound noise the audit finds 0.1 to 0.5.
CASES = [
    ("prompt", "server", 4.0, 4),
    ("prompt", "client", 4.0, 4),
    ("client", "server", 6.0, 4),
    ("client", "client", 6.0, 4),
]


def bound(settings: Settings, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    found = audit(mechanism(settings), CANARIES, GUESSES, delta=1e-5, rng=rng, confidence=0.99)
    return found.epsilon


@pytest.mark.parametrize(("unit", "noise", "multiplier", "rounds"), CASES)
def test_no_attack_finds_more_than_is_stated(
    unit: str, noise: str, multiplier: float, rounds: int
) -> None:
    settings = make(unit, noise, multiplier, rounds)
    stated = worst_epsilon(settings, settings.rounds)
    assert stated is not None
    assert bound(settings) <= stated


@pytest.mark.parametrize(("unit", "noise", "multiplier", "rounds"), CASES)
def test_noise_of_a_tenth_of_what_is_claimed_is_caught(
    monkeypatch: pytest.MonkeyPatch, unit: str, noise: str, multiplier: float, rounds: int
) -> None:
    settings = make(unit, noise, multiplier, rounds)
    stated = worst_epsilon(settings, settings.rounds)
    assert stated is not None
    for name in ("server_noise_std", "holder_noise_std"):
        honest = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, honest=honest: honest(*a) / 10)
    assert bound(settings) > stated


def test_noise_for_the_mean_does_not_do_for_the_trimmed_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mistake that libraries make: z C / n where z C / (n - 2k) is needed. Here n - 2k = 1."""
    settings = make("prompt", "server", 4.0).model_copy(
        update={"robust": Settings().robust.model_copy(update={"trim": 5})}
    )
    federation = settings.federation.model_copy(update={"min_holders": 11})
    settings = settings.model_copy(update={"federation": federation})
    stated = worst_epsilon(settings, settings.rounds)
    assert stated is not None
    assert bound(settings) <= stated
    monkeypatch.setattr(module, "sensitivity", lambda rule, groups, trim, size: 1 / groups)
    assert bound(settings) > stated


def test_the_audit_sees_what_there_is_to_see() -> None:
    """Without trimming, clipping to zero or a wrong sign somewhere would blind it unnoticed."""
    weak = make("prompt", "server", 0.2, rounds=1, prompts=CANARIES)
    assert bound(weak) > 2.0


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
