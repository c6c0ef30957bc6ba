"""Releases of different kinds add up to no less than they cost."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import PrivacyError
from fedgrpo.privacy import Mechanism, compose, epsilon_gaussian, round_cost, worst_epsilon
from fedgrpo.settings import Settings

DELTA = 1e-5


def test_nothing_released_costs_nothing() -> None:
    assert compose([], DELTA) == 0


@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_a_run_by_itself_costs_what_its_own_accountant_says(unit: str) -> None:
    """So that a site's account can never be behind that of a run."""
    privacy = {"unit": unit, "noise_multiplier": 1.2}
    settings = Settings.from_mapping({"privacy": privacy})
    cost = round_cost(settings)
    assert cost is not None
    # What a limited time costs prompts is in a run's own figure, and in a site's account.
    assert compose([cost] * 17, DELTA) == pytest.approx(worst_epsilon(settings, 17), abs=1e-4)


@hypothesis_settings(deadline=None, max_examples=30)
@given(noises=st.lists(st.floats(0.5, 20), min_size=1, max_size=8))
def test_composition_of_unlike_gaussians_is_exact(noises: list[float]) -> None:
    together = sum(z**-2 for z in noises) ** -0.5
    found = compose([Mechanism(z) for z in noises], DELTA)
    assert found == pytest.approx(epsilon_gaussian(together, 1, DELTA), abs=1e-9)


def test_composition_of_unlike_samples_agrees_with_dp_accounting() -> None:
    history = [(0.8, 0.02, 20), (1.5, 0.1, 15), (3.0, 1.0, 4)]
    mechanisms = [Mechanism(z, q) for z, q, times in history for _ in range(times)]
    # PLDAccountant of dp-accounting 0.6.0, an upper bound too.
    assert 3.3214 <= compose(mechanisms, DELTA) <= 1.01 * 3.3214


def test_the_order_of_releases_does_not_matter() -> None:
    some = [Mechanism(1.0, 0.1), Mechanism(2.0), Mechanism(1.0, 0.1)]
    assert compose(some, DELTA) == compose(some[::-1], DELTA)


def test_every_further_release_costs() -> None:
    history = [Mechanism(1.0, 0.1)] * 5
    assert compose([*history, Mechanism(4.0, 0.01)], DELTA) > compose(history, DELTA)


@pytest.mark.parametrize("fields", [(0.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, 1.1)])
def test_what_is_no_release_is_refused(fields: tuple[float, float]) -> None:
    with pytest.raises(PrivacyError):
        Mechanism(*fields)


def test_a_run_without_a_unit_has_no_cost() -> None:
    assert round_cost(Settings.from_mapping({"privacy": {"unit": "none"}})) is None
