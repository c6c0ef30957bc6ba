"""Stated epsilons agree with independent computations, and the budget is kept."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.analysis import gdp
from scipy.stats import norm

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import (
    check_budget,
    epsilon_gaussian,
    epsilon_subsampled,
    guarantees,
    worst_epsilon,
)
from fedgrpo.privacy.accounting.guarantees import prompt_epsilon
from fedgrpo.settings import Settings

_DELTA = 1e-5


def _settings(rounds: int = 24, bucket: int = 3, **privacy: Any) -> Settings:
    tree = {
        "rounds": rounds,
        "privacy": privacy,
        "secure": {"bucket_size": bucket},
        "federation": {"min_clients": 3 * bucket},
    }
    return Settings.from_mapping(tree)


# Without sampling.


@pytest.mark.parametrize(
    ("noise", "rounds", "expected"),
    [(8.0, 50, 3.80), (2.68, 20, 8.0), (1.0, 10, 17.9), (2.0, 100, 33), (12.0, 10, 0.98)],
)
def test_gaussian_composition_matches_published_figures(
    noise: float, rounds: int, expected: float
) -> None:
    assert epsilon_gaussian(noise, rounds, _DELTA) == pytest.approx(expected, rel=0.012)


@pytest.mark.slow
@hypothesis_settings(deadline=None)
@given(noise=st.floats(0.5, 30), rounds=st.integers(1, 100), exponent=st.floats(-9, -2))
def test_gaussian_composition_matches_opacus_dual(
    noise: float, rounds: int, exponent: float
) -> None:
    delta, mu = 10.0**exponent, rounds**0.5 / noise
    if gdp.delta_eps_mu(eps=0, mu=mu) <= delta:
        assert epsilon_gaussian(noise, rounds, delta) == 0
    elif mu < 15:  # Beyond it, Opacus' bracket of 500 ends.
        expected = gdp.eps_from_mu(mu=mu, delta=delta)
        assert epsilon_gaussian(noise, rounds, delta) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("noise", [0.01, 1e-4])
def test_gaussian_composition_is_stable_where_exponentials_overflow(noise: float) -> None:
    mu = 1 / noise
    # For large mu the second term is negligible: delta = Phi(mu/2 - eps/mu) to a relative 1 / mu.
    expected = mu * (mu / 2 - norm.ppf(_DELTA))
    assert epsilon_gaussian(noise, 1, _DELTA) == pytest.approx(expected, rel=1e-3)


@hypothesis_settings(deadline=None)
@given(noise=st.floats(0.3, 20), rounds=st.integers(1, 60))
def test_more_noise_and_fewer_rounds_never_cost_more(noise: float, rounds: int) -> None:
    epsilon = epsilon_gaussian(noise, rounds, _DELTA)
    assert epsilon_gaussian(noise * 1.1, rounds, _DELTA) <= epsilon
    assert epsilon_gaussian(noise, rounds + 1, _DELTA) >= epsilon


# With sampling.


def _privacy_loss_epsilon(noise: float, rate: float, rounds: int, *, remove: bool) -> float:
    """Epsilon by convolving the discretised privacy loss of one direction, losses rounded up."""
    step, size = 2e-4, 2**18
    x = np.linspace(-12 * noise, 12 * noise + 1, 400_001)
    mixture = (1 - rate) * norm.cdf(x, 0, noise) + rate * norm.cdf(x, 1, noise)
    mass = np.diff(mixture if remove else norm.cdf(x, 0, noise))
    right = np.log1p(rate * np.expm1((2 * x - 1) / (2 * noise**2)))
    loss = right[1:] if remove else -right[:-1]
    cells = np.ceil(loss / step).astype(int) + size // (2 * rounds)
    single = np.bincount(np.clip(cells, 0, size - 1), weights=mass, minlength=size)
    total = np.fft.irfft(np.fft.rfft(single) ** rounds, size)
    losses = (np.arange(size) - rounds * (size // (2 * rounds))) * step

    def delta(epsilon: float) -> float:
        above = losses > epsilon
        return float(np.sum(total[above] * -np.expm1(epsilon - losses[above])))

    low, high = 0.0, 25.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if delta(middle) > _DELTA else (low, middle)
    return high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "rate", "rounds"),
    [(0.5, 0.012, 24), (1.0, 0.012, 30), (0.67, 0.032, 200), (2.44, 0.016, 16)],
)
def test_sampled_epsilon_covers_both_adding_and_removing_by_an_independent_convolution(
    noise: float, rate: float, rounds: int
) -> None:
    stated = epsilon_subsampled(noise, rate, rounds, _DELTA)
    removing = _privacy_loss_epsilon(noise, rate, rounds, remove=True)
    adding = _privacy_loss_epsilon(noise, rate, rounds, remove=False)
    rounding = rounds * 2e-4  # Losses are rounded up by at most one step a round.
    assert max(removing, adding) - rounding <= stated <= max(removing, adding) + 0.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "rate", "rounds"), [(0.67, 64 / 2000, 200), (0.5, 0.012, 24), (1.23, 64 / 2000, 200)]
)
def test_sampled_epsilon_is_that_of_opacus_stepping(noise: float, rate: float, rounds: int) -> None:
    accountant = PRVAccountant()
    for _ in range(rounds):
        accountant.step(noise_multiplier=noise, sample_rate=rate)
    assert epsilon_subsampled(noise, rate, rounds, _DELTA) == accountant.get_epsilon(_DELTA)


def test_sampled_epsilon_matches_published_figures() -> None:
    assert epsilon_subsampled(0.67, 64 / 2000, 200, _DELTA) == pytest.approx(8, abs=0.15)
    assert epsilon_subsampled(0.88, 64 / 2000, 200, _DELTA) == pytest.approx(4, abs=0.1)


def test_a_sample_of_everything_is_no_sample() -> None:
    assert epsilon_subsampled(3.0, 1.0, 20, _DELTA) == epsilon_gaussian(3.0, 20, _DELTA)


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(("noise", "delta"), [(0.1, _DELTA), (1.0, 1e-12), (0.02, _DELTA)])
def test_where_the_tight_accountant_is_unsound_renyi_bounds(noise: float, delta: float) -> None:
    accountant = RDPAccountant()
    accountant.history = [(noise, 0.05, 30)]
    assert epsilon_subsampled(noise, 0.05, 30, delta) == accountant.get_epsilon(delta)


def test_a_failing_tight_accountant_leaves_the_renyi_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> float:
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    accountant = RDPAccountant()
    accountant.history = [(0.913, 0.0123, 31)]
    monkeypatch.setattr(PRVAccountant, "get_epsilon", fail)
    assert epsilon_subsampled(0.913, 0.0123, 31, _DELTA) == accountant.get_epsilon(_DELTA)


def test_no_rounds_cost_nothing() -> None:
    assert epsilon_gaussian(1.0, 0, _DELTA) == 0
    assert epsilon_subsampled(1.0, 0.01, 0, _DELTA) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 0.1, 1, 1e-5),
        (float("nan"), 0.1, 1, 1e-5),
        (1.0, 0.0, 1, 1e-5),
        (1.0, 1.1, 1, 1e-5),
        (1.0, 0.1, -1, 1e-5),
        (1.0, 0.1, 1, 0.0),
        (1.0, 0.1, 1, 1.0),
    ],
)
def test_impossible_questions_are_refused(arguments: tuple[float, float, int, float]) -> None:
    with pytest.raises(PrivacyError, match="no epsilon follows"):
        epsilon_subsampled(*arguments)


# Statements.


def test_prompt_statement_assumes_the_smallest_client() -> None:
    settings = _settings(noise_multiplier=0.8)
    rate = settings.grpo.prompts_per_step / settings.data.min_prompts
    worst, alone = guarantees(settings, 24)
    assert worst.epsilon == prompt_epsilon(0.8, rate, 24, _DELTA)
    assert worst.adversary == "server colluding with all of a client's bucket peers"
    assert (worst.unit, worst.delta) == ("prompt", _DELTA)
    # Two of three members are sure to survive; each added all the noise.
    assert alone.epsilon == prompt_epsilon(0.8 * 2**0.5, rate, 24, _DELTA)


def test_larger_buckets_help_against_the_server_alone() -> None:
    settings = _settings(unit="client", noise_multiplier=8.0)
    worst, alone = guarantees(settings, 10, smallest_bucket=7)
    assert worst == guarantees(settings, 10)[0]
    assert alone.epsilon == epsilon_gaussian(8.0 * 2, 10, _DELTA)


def test_server_noise_promises_nothing_against_the_server() -> None:
    (only,) = guarantees(_settings(unit="client", noise="server", noise_multiplier=8.0), 10)
    assert only.epsilon == epsilon_gaussian(8.0, 10, _DELTA)
    assert "un-noised bucket sums" in only.adversary


def test_no_unit_no_statement() -> None:
    settings = _settings(unit="none")
    assert guarantees(settings, 24) == ()
    assert worst_epsilon(settings, 24) is None
    check_budget(settings)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    noise=st.floats(1, 20),
    rounds=st.integers(0, 50),
    place=st.sampled_from(["client", "server"]),
    bucket=st.integers(3, 9),
)
def test_statements_come_worst_first_and_the_worst_is_the_headline(
    noise: float, rounds: int, place: str, bucket: int
) -> None:
    settings = _settings(bucket=bucket, unit="client", noise=place, noise_multiplier=noise)
    epsilons = [entry.epsilon for entry in guarantees(settings, rounds)]
    assert epsilons == sorted(epsilons, reverse=True)
    assert worst_epsilon(settings, rounds) == epsilons[0]


def test_a_bucket_below_the_minimum_voids_the_statement() -> None:
    with pytest.raises(PrivacyError, match="bucket of 2"):
        guarantees(_settings(), 1, smallest_bucket=2)


# Budget.


def _spent(settings: Settings) -> float:
    return worst_epsilon(settings, settings.rounds) or 0.0


def _cured(settings: Settings, **change: Any) -> Settings:
    flat = settings.to_run_config() | {key.replace("__", "."): v for key, v in change.items()}
    return Settings.from_run_config(flat)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        _settings(rounds=40, noise_multiplier=0.4),
        _settings(rounds=20, unit="client", noise_multiplier=1.0),
        _settings(rounds=20, unit="client", noise="server", noise_multiplier=0.05, max_epsilon=0.5),
    ],
    ids=["prompt", "client", "server"],
)
def test_each_cure_of_an_exceeded_budget_works_and_no_smaller_one_does(settings: Settings) -> None:
    with pytest.raises(PrivacyError) as refusal:
        check_budget(settings)
    cure, limit = refusal.value.cure, settings.privacy.max_epsilon
    noise = float(re.search(r"noise_multiplier >= ([\d.]+)", cure)[1])
    check_budget(_cured(settings, privacy__noise_multiplier=noise))
    assert _spent(_cured(settings, privacy__noise_multiplier=noise - 0.01)) > limit
    if found := re.search(r"rounds <= (\d+)", cure):
        check_budget(_cured(settings, rounds=int(found[1])))
        assert _spent(_cured(settings, rounds=int(found[1]) + 1)) > limit
    ceiling = float(re.search(r"max_epsilon to ([\d.]+)", cure)[1])
    check_budget(_cured(settings, privacy__max_epsilon=ceiling))
    assert f"max_epsilon = {limit}" in refusal.value.problem
    assert f"epsilon = {_spent(settings):.2f}" in refusal.value.problem


@pytest.mark.slow
def test_a_budget_out_of_reach_of_any_noise_is_refused_without_a_false_cure() -> None:
    with pytest.raises(PrivacyError) as refusal:
        check_budget(_settings(noise_multiplier=1.0, max_epsilon=1e-9))
    assert refusal.value.cure.startswith("raise privacy.max_epsilon")


def test_a_delta_below_what_limited_time_costs_promises_nothing() -> None:
    with pytest.raises(PrivacyError, match="epsilon = inf") as refusal:
        check_budget(_settings(rounds=20, delta=1e-11))
    assert refusal.value.cure == "set rounds <= 9, or raise privacy.delta"


def test_the_default_run_is_within_its_budget() -> None:
    check_budget(Settings())


@pytest.mark.slow
def test_importing_the_room_loads_neither_torch_nor_opacus() -> None:
    script = (
        "import sys, fedgrpo.privacy; print([m for m in ('torch', 'opacus') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
