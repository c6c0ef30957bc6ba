"""What a run can expect is on the measured curve, and nothing is said beyond it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.privacy import Cohort
from fedgrpo.privacy.accounting.budget import Budget
from fedgrpo.privacy.accounting.expectation import (
    RATIOS,
    SHARES,
    WANTED,
    clients_for,
    expected_share,
    prompts_for,
)
from fedgrpo.privacy.accounting.guarantees import prompt_epsilon


@pytest.mark.parametrize(("ratio", "share"), list(zip(RATIOS, SHARES, strict=True)))
def test_measured_points_are_told_as_they_were_measured(ratio: float, share: float) -> None:
    assert expected_share(ratio) == pytest.approx(share)


@given(st.floats(0, RATIOS[-1]), st.floats(0, RATIOS[-1]))
def test_more_noise_never_promises_more(one: float, other: float) -> None:
    less, more = sorted((one, other))
    first, second = expected_share(less), expected_share(more)
    assert first is not None
    assert second is not None
    assert first >= second >= SHARES[-1]


def test_beyond_the_measured_range_nothing_is_promised() -> None:
    assert expected_share(RATIOS[-1] * 1.001) is None


@given(noise=st.floats(0.5, 20), dimension=st.integers(10, 10**5), trim=st.integers(0, 3))
def test_the_clients_that_are_wanted_are_the_least_that_reach_the_share(
    noise: float, dimension: int, trim: int
) -> None:
    cohort = Cohort(40, trim=trim, prompts=24)
    found = clients_for(cohort, noise, dimension)
    assert found is not None

    def share(clients: int) -> float:
        ratio = Cohort(clients, trim=trim, prompts=24).noise_to_signal(noise, dimension)
        return expected_share(ratio) or 0.0

    assert share(found) >= WANTED - 1e-9
    if found > 2 * trim + 1:
        assert share(found - 1) < WANTED + 1e-9


def test_no_number_of_clients_is_promised_where_none_is_enough() -> None:
    assert clients_for(Cohort(9), 1e6, 10**6) is None


@pytest.mark.slow
def test_the_prompts_that_are_wanted_pay_for_the_noise_that_reaches_the_share() -> None:
    budget = Budget("prompt", 2.0, 16, epsilon=0.1, delta=1e-5, sample_rate=24 / 2000)
    cohort = Cohort(12, prompts=24)
    found = prompts_for(budget, cohort, 3968)
    assert found is not None
    needed = 2.0 * 0.183 / cohort.noise_to_signal(2.0, 3968)
    assert prompt_epsilon(needed, 24 / found, 16, 1e-5) <= 0.1
    assert prompt_epsilon(needed, 24 / (0.97 * found), 16, 1e-5) > 0.1
