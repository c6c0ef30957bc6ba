"""A trim that a committee's round would skip is refused before anybody trains, and one that fits is
told: settings and circuits count the same groups.
"""

from __future__ import annotations

from typing import Any

import pytest

from fedgrpo.federation.simulation.preflight import preflight
from fedgrpo.ground.errors import CohortError, SettingsError
from fedgrpo.privacy.accounting.budget import Cohort
from fedgrpo.secure.committee import Plan
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.settings.protocols.committee.groups import groups_of, most_trim


def settings(clients: int, trim: int, rule: str = "trimmed_mean", simulated: int = 0) -> Settings:
    tree: dict[str, Any] = {
        "aggregation": {"protocol": "committee"},
        "privacy": {"noise": "server", "max_epsilon": 1e6},
        "robust": {"rule": rule, "trim": trim},
        "federation": {"min_clients": clients},
        "simulation": {"clients": simulated or max(clients, 12)},
    }
    return Settings.from_mapping(tree)


def test_more_than_twenty_clients_are_trimmed_in_groups() -> None:
    counts = (0, 1, 3, 20, 21, 40, 41, 200, 1000)
    assert [groups_of(n) for n in counts] == [0, 1, 3, 20, 11, 20, 14, 20, 20]
    assert [most_trim(n) for n in counts[2:]] == [0, 8, 4, 8, 5, 8, 8]


@pytest.mark.parametrize("clients", [3, 5, 20, 21, 39, 41, 61, 200])
def test_settings_allow_what_the_circuits_can_trim_and_no_more(clients: int) -> None:
    most = most_trim(clients)
    assert settings(clients, most).robust.trim == most
    assert Plan(clients, 8, trim=most).groups == groups_of(clients)
    with pytest.raises(CohortError):
        Plan(clients, 8, trim=most + 1)
    with pytest.raises(SettingsError, match=rf"robust\.trim = {most + 1} is too much for"):
        settings(clients, most + 1)


@pytest.mark.parametrize(
    ("clients", "trim", "cure"),
    [
        (200, 10, "set robust.trim <= 8"),
        (21, 8, "set robust.trim <= 4, or have 20 take part at most"),
        (5, 2, "set federation.min_clients >= 7, or set robust.trim <= 1"),
        (3, 9, "set robust.trim <= 0"),
    ],
)
def test_the_error_says_which_trim_fits(clients: int, trim: int, cure: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(clients, trim)
    assert f"robust.trim = {trim} is too much for federation.min_clients = {clients}" in (
        caught.value.problem
    )
    assert caught.value.cure == cure


def test_a_median_withstands_less_than_half_of_the_groups() -> None:
    assert settings(200, 9, "median")
    with pytest.raises(SettingsError, match="as 20 values in each coordinate"):
        settings(200, 10, "median")
    assert settings(200, 10, "norm_checked")


def test_clients_between_the_least_and_all_can_be_too_many_to_trim() -> None:
    with pytest.raises(SettingsError, match=r"for simulation\.clients = 21") as caught:
        preflight(settings(20, 8, simulated=21))
    assert "have 20 take part at most" in caught.value.cure
    with pytest.raises(SettingsError, match="for clients that do not drop out = 24"):
        preflight(settings(20, 8, simulated=40))


def test_what_is_left_of_sums_is_counted_in_clients() -> None:
    assert Cohort.of(settings(40, 4)).kept == 40 - 2 * 4 * 2
    assert Cohort.of(settings(20, 4)).kept == 12


def test_buckets_and_single_clients_count_as_before() -> None:
    defaults = Settings()
    allowed = [protocol_of(defaults).most_trim(defaults, n) for n in (8, 9, 15)]
    assert allowed == [0, 1, 2]
