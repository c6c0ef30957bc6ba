"""A planned budget agrees with independent accountants, and never costs more than was aimed for."""

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import Cohort, budget_of, plan_budget, worst_epsilon
from fedgrpo.settings import Settings

DELTA = 1e-5


def closed_form(noise: float, rounds: int) -> float:
    """Epsilon of Balle and Wang's theorem 8, solved without this package."""
    mu = math.sqrt(rounds) / noise
    return float(
        brentq(
            lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - DELTA,
            0,
            100,
            xtol=1e-13,
        )
    )


@pytest.mark.parametrize(("noise", "rounds"), [(2.68, 20), (8.0, 50), (1.5, 10), (5.7, 100)])
def test_epsilon_is_that_of_the_closed_form(noise: float, rounds: int) -> None:
    planned = plan_budget("client", DELTA, noise_multiplier=noise, rounds=rounds)
    assert planned.epsilon == pytest.approx(closed_form(noise, rounds), abs=1e-6)


# Figures of dp-accounting 0.6.0, which pins an old attrs and so is not installed beside the rest.


@pytest.mark.parametrize(
    ("noise", "rounds", "expected"),
    [
        (2.68, 20, 8.015536457220508),
        (8.0, 50, 3.796535722893364),
        (1.5, 10, 10.669522809668369),
        (5.7, 100, 8.516862975740272),
    ],
)
def test_epsilon_of_clients_agrees_with_dp_accounting(
    noise: float, rounds: int, expected: float
) -> None:
    planned = plan_budget("client", DELTA, noise_multiplier=noise, rounds=rounds)
    assert planned.epsilon == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "rate", "rounds", "expected"),
    [(0.7, 0.032, 56, 4.544852744665898), (1.0, 0.1, 100, 7.04660287720805)],
)
def test_epsilon_of_prompts_agrees_with_dp_accounting(
    noise: float, rate: float, rounds: int, expected: float
) -> None:
    planned = plan_budget("prompt", DELTA, noise_multiplier=noise, rounds=rounds, sample_rate=rate)
    # Two numerical upper bounds of one number; this package's is the looser.
    assert expected <= planned.epsilon <= 1.01 * expected


@pytest.mark.slow
def test_a_small_epsilon_of_prompts_is_not_mostly_the_accountants_own_error() -> None:
    """PLDAccountant of dp-accounting 0.6.0 finds that z = 2.44 is enough for 0.1 (to 0.3 %)."""
    planned = plan_budget("prompt", DELTA, epsilon=0.1, rounds=16, sample_rate=64 / 4000)
    assert 2.43 < planned.noise_multiplier < 1.02 * 2.44
    # What the accountant says before it is asked for a smaller error.
    assert planned.noise_multiplier < 0.95 * 2.62


def test_epsilon_agrees_with_dp_accounting_where_it_is_installed() -> None:
    """``pip install --no-deps dp-accounting absl-py dm-tree`` installs it."""
    exact = pytest.importorskip("dp_accounting").get_epsilon_gaussian
    for noise in (0.8, 1.7, 3.1, 12.0):
        for rounds in (1, 7, 90):
            planned = plan_budget("client", DELTA, noise_multiplier=noise, rounds=rounds)
            assert planned.epsilon == pytest.approx(exact(noise / rounds**0.5, DELTA), abs=1e-6)


@hypothesis_settings(deadline=None, max_examples=30)
@given(epsilon=st.floats(0.05, 40), rounds=st.integers(1, 500))
def test_the_least_noise_reaches_its_target_from_below(epsilon: float, rounds: int) -> None:
    planned = plan_budget("client", DELTA, epsilon=epsilon, rounds=rounds)
    assert planned.epsilon <= epsilon
    assert planned.epsilon == pytest.approx(epsilon, rel=1e-6)


@hypothesis_settings(deadline=None, max_examples=30)
@given(epsilon=st.floats(0.5, 20), noise=st.floats(1.0, 20.0))
def test_most_rounds_are_affordable_and_one_more_is_not(epsilon: float, noise: float) -> None:
    planned = plan_budget("client", DELTA, epsilon=epsilon, noise_multiplier=noise)
    assert planned.epsilon <= epsilon
    more = plan_budget("client", DELTA, noise_multiplier=noise, rounds=planned.rounds + 1)
    assert more.epsilon > epsilon


@pytest.mark.slow
def test_a_prompts_noise_never_costs_more_than_was_aimed_for() -> None:
    planned = plan_budget("prompt", DELTA, epsilon=4.0, rounds=40, sample_rate=0.032)
    assert 3.98 < planned.epsilon <= 4.0
    whole = plan_budget("prompt", DELTA, epsilon=4.0, rounds=40, sample_rate=1.0)
    assert planned.noise_multiplier < whole.noise_multiplier, "secret sampling amplifies"


@pytest.mark.parametrize(
    "given_figures",
    [
        {},
        {"rounds": 3},
        {"rounds": 3, "epsilon": 1.0, "noise_multiplier": 1.0},
        {"rounds": 3, "epsilon": 0.0},
        {"rounds": -1, "noise_multiplier": 1.0},
        {"rounds": 1, "noise_multiplier": 0.0},
        {"rounds": 1, "noise_multiplier": 1.0, "sample_rate": 0.5},
    ],
)
def test_what_gives_no_budget_is_refused(given_figures: dict[str, float]) -> None:
    with pytest.raises(PrivacyError):
        plan_budget("client", DELTA, **given_figures)  # type: ignore[arg-type]


def test_noise_after_trimming_is_that_of_the_design() -> None:
    cohort = Cohort(clients=50, trim=5)
    assert cohort.noise_to_signal(2.68, 501) == pytest.approx(2.68 * math.sqrt(501) / 40)
    assert cohort.learnable_dimension(2.68) == pytest.approx(501, abs=1)


def test_buckets_and_prompts_divide_the_noise() -> None:
    assert Cohort(27, trim=2, bucket_size=3).kept == 15
    single, many = Cohort(20, 2), Cohort(20, 2, prompts=10)
    ratio = single.noise_to_signal(1.0, 100) / many.noise_to_signal(1.0, 100)
    assert ratio == pytest.approx(10)


def test_each_clients_own_noise_averages_out_more_slowly() -> None:
    before = Cohort(20, 2, after_trimming=False)
    assert before.noise_to_signal(1.0, 100) == pytest.approx(10 / 4)


@hypothesis_settings(max_examples=50)
@given(
    noise=st.floats(0.1, 20),
    clients=st.integers(3, 500),
    prompts=st.integers(1, 50),
    after=st.booleans(),
)
def test_the_learnable_dimension_is_the_largest_that_stays_within_the_limit(
    noise: float, clients: int, prompts: int, after: bool
) -> None:
    cohort = Cohort(clients, prompts=prompts, after_trimming=after)
    able = cohort.learnable_dimension(noise)
    assert cohort.noise_to_signal(noise, able) <= 1.5 * (1 + 1e-9)
    assert cohort.noise_to_signal(noise, able + 1) > 1.5 * (1 - 1e-9)


def test_a_warning_names_the_dimension_that_would_learn() -> None:
    cohort = Cohort(clients=50, trim=5)
    assert cohort.warning(2.68, 501) == ""
    assert "train at most 501 values" in cohort.warning(2.68, 10_000)
    assert "take more clients" in Cohort(3).warning(30.0, 10_000)


def test_a_cohort_that_is_trimmed_away_is_refused() -> None:
    with pytest.raises(PrivacyError, match="leaves nobody"):
        Cohort(clients=6, trim=1, bucket_size=3)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_a_scenarios_plan_is_the_one_that_its_run_is_held_to(unit: str) -> None:
    privacy = {"unit": unit, "noise_multiplier": 1.3, "max_epsilon": 1e4}
    settings = Settings.from_mapping({"rounds": 30, "privacy": privacy})
    planned = budget_of(settings)
    assert planned is not None
    assert planned.epsilon == worst_epsilon(settings, 30)
    aimed = budget_of(settings, epsilon=2.0)
    assert aimed is not None
    assert aimed.epsilon <= 2.0


def test_a_scenario_without_privacy_has_no_budget() -> None:
    assert budget_of(Settings.from_mapping({"privacy": {"unit": "none"}})) is None


def test_a_committees_budget_is_planned_for_everybody_but_its_members() -> None:
    settings = Settings.from_mapping(
        {
            "rounds": 10,
            "privacy": {"unit": "client", "noise": "server", "noise_multiplier": 8.0},
            "aggregation": {"protocol": "committee"},
        }
    )
    planned = budget_of(settings)
    assert planned is not None
    assert planned.noise_multiplier == 8.0
    assert planned.epsilon == pytest.approx(closed_form(8.0, 10))
    aimed = budget_of(settings, planned.epsilon)
    assert aimed is not None
    assert aimed.noise_multiplier == pytest.approx(8.0, rel=1e-3)
