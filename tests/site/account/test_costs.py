"""Several runs on the same prompts add up, and stop at the site's own limit."""

from typing import Any

import pytest

from fedgrpo.ground.errors import PolicyError
from fedgrpo.privacy import compose, epsilon_gaussian, guarantees, worst_epsilon
from fedgrpo.privacy.accounting.composition import Mechanism
from fedgrpo.settings import Settings
from fedgrpo.site import Entry, Policy, Refusal, check_spending, rounds_left, spent_epsilon
from fedgrpo.site.account.costs import round_entry

DELTA = 1e-5


def settings(
    unit: str = "client", noise: float = 3.0, rounds: int = 40, **privacy: Any
) -> Settings:
    tree = {"unit": unit, "noise_multiplier": noise, "max_epsilon": 1e6, **privacy}
    return Settings.from_mapping({"privacy": tree, "rounds": rounds})


def entries(count: int, **of: Any) -> list[Entry]:
    return [round_entry(settings(**of))] * count


@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_one_runs_rounds_cost_what_the_run_says(unit: str) -> None:
    run = settings(unit)
    spent = spent_epsilon(entries(12, unit=unit), unit, DELTA)
    assert spent == pytest.approx(worst_epsilon(run, 12), abs=1e-9)


def test_a_round_over_a_committee_is_charged_by_what_one_curious_member_sees() -> None:
    """It takes three of four shares of the noise off: half the multiplier, the larger epsilon."""
    tree = {"unit": "client", "noise": "server", "noise_multiplier": 6.0, "max_epsilon": 1e6}
    run = Settings.from_mapping({"privacy": tree, "aggregation": {"protocol": "committee"}})
    stated = [guarantee.epsilon for guarantee in guarantees(run, 5)]
    spent = spent_epsilon([round_entry(run)] * 5, "client", DELTA)
    assert spent == pytest.approx(epsilon_gaussian(3.0, 5, DELTA), abs=1e-9)
    assert spent == pytest.approx(max(stated), abs=1e-9) != min(stated)


def test_two_runs_on_the_same_prompts_add_up() -> None:
    both = entries(10, noise=3.0) + entries(5, noise=5.0)
    together = (10 / 3.0**2 + 5 / 5.0**2) ** -0.5
    expected = epsilon_gaussian(together, 1, DELTA)
    assert spent_epsilon(both, "client", DELTA) == pytest.approx(expected, abs=1e-9)


def test_a_release_that_hides_the_site_counts_for_its_prompts_with_half_the_noise() -> None:
    mixed = entries(3, unit="prompt", noise=1.0) + entries(2, noise=4.0)
    rate = settings("prompt").grpo.prompts_per_step / settings("prompt").data.min_prompts
    expected = compose([Mechanism(1.0, rate)] * 3 + [Mechanism(2.0)] * 2, DELTA)
    assert spent_epsilon(mixed, "prompt", DELTA) == pytest.approx(expected, abs=1e-5)


def test_a_release_that_hides_prompts_says_nothing_about_the_site() -> None:
    assert spent_epsilon(entries(3, unit="prompt"), "client", DELTA) == 0


def test_a_release_without_noise_counts_as_a_round_only() -> None:
    bare = entries(3, unit="none")
    assert spent_epsilon(bare, "prompt", DELTA) == 0
    with pytest.raises(PolicyError, match="3 releases would be beyond"):
        check_spending(Policy(rounds=2), bare)


def test_a_torn_line_counts_for_every_unit() -> None:
    torn = [Entry("", 0, 0, "", "none", 2.0, 0.1, torn="ab")]
    assert spent_epsilon(torn, "client", DELTA) == epsilon_gaussian(2.0, 1, DELTA)
    expected = compose([Mechanism(2.0, 0.1)], DELTA)
    assert spent_epsilon(torn, "prompt", DELTA) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("limit", [2.0, 5.0])
def test_the_release_that_would_pass_the_limit_is_refused(limit: float) -> None:
    policy = Policy.model_validate({"client": {"largest_epsilon": limit}})
    left = rounds_left(policy, [], settings())
    assert 0 < left < 40
    check_spending(policy, entries(left))
    with pytest.raises(PolicyError) as caught:
        check_spending(policy, entries(left + 1))
    assert caught.value.code == Refusal.EPSILON
    assert "above" in caught.value.problem


def test_rounds_are_counted_over_all_runs() -> None:
    policy = Policy.model_validate({"client": {"largest_epsilon": 1e6}, "rounds": 7})
    assert rounds_left(policy, entries(5, noise=9.0), settings()) == 2
    with pytest.raises(PolicyError) as caught:
        check_spending(policy, entries(8))
    assert caught.value.code == Refusal.ROUNDS


def test_the_sites_own_delta_decides_not_the_servers() -> None:
    """A server could ask for a delta at which anything is cheap."""
    strict = Policy.model_validate({"client": {"largest_epsilon": 5.0}, "delta": 1e-9})
    lax = Policy.model_validate({"client": {"largest_epsilon": 5.0}, "delta": 1e-3})
    asked = settings(delta=0.5)
    assert rounds_left(strict, [], asked) < rounds_left(lax, [], asked)
