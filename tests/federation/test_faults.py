"""Faults on purpose: whoever drops out, is late or comes late, what is released has its noise."""

from __future__ import annotations

import numpy as np
import pytest

from fedgrpo.attacks import faults_of
from tests.federation.federation import Federation, make_adapter, make_settings, vector_of

DIMENSION, PROMPTS, Z = 20_000, 24, 2.0
PRIVATE = {
    "privacy__unit": "prompt",
    "privacy__noise": "server",
    "privacy__noise_multiplier": Z,
    "privacy__max_epsilon": 1e6,
    "federation__min_clients": 7,
    "simulation__clients": 12,
    "simulation__dropout": 0.4,
}
FAULTS = {
    "dropouts": {"simulation__droppers": 12},
    "stragglers": {"simulation__stragglers": 12},
    "newcomers": {"simulation__newcomers": 5, "simulation__newcomers_from": 2},
    "all": {
        "simulation__droppers": 4,
        "simulation__stragglers": 4,
        "simulation__newcomers": 2,
        "simulation__large": 1,
    },
}


def noise_of(federation: Federation) -> tuple[float, int, int]:
    """Standard deviation of what a round of zeros released, survivors, and values that the rule
    saw.
    """
    strategy = federation.run(adapter=make_adapter(DIMENSION))
    row = strategy.history[-1]
    assert row.applied, row.reason
    share = federation.settings.privacy.metrics_share
    return float(vector_of(strategy).std() * np.sqrt(1 - share)), row.finished, row.buckets


@pytest.mark.parametrize("fault", FAULTS)
def test_noise_after_the_rule_covers_one_prompt_of_those_who_are_left(fault: str) -> None:
    settings = make_settings(
        **PRIVATE, **FAULTS[fault], aggregation__protocol="plain", robust__trim=1, seed=6
    )
    simulation = settings.simulation
    there = [
        not (faults := faults_of(simulation, partition, 1, settings.seed)).drops and not faults.late
        for partition in range(12)
    ]
    assert 7 <= sum(there) < 12
    noise, finished, seen = noise_of(Federation(settings, delta=lambda *_: np.zeros(DIMENSION)))
    assert finished == seen == sum(there)
    promised = Z / (PROMPTS * (seen - 2))
    assert noise >= promised * (1 - 5 / np.sqrt(2 * DIMENSION))


@pytest.mark.parametrize("stage", ["train", "share", "mask", "unmask"])
def test_noise_over_buckets_follows_the_smallest_that_is_left(stage: str) -> None:
    settings = make_settings(**(PRIVATE | {"federation__min_clients": 9}), robust__trim=1)
    gone = {1001, 1005, 1009}
    federation = Federation(
        settings,
        delta=lambda *_: np.zeros(DIMENSION),
        drop=lambda at, node: at == stage and node in gone,
    )
    noise, finished, buckets = noise_of(federation)
    # Whatever was lost, no bucket of more than this can have been the smallest.
    most = finished // buckets
    promised = Z / (PROMPTS * most * (buckets - 2))
    assert noise >= promised * (1 - 5 / np.sqrt(2 * DIMENSION))


def test_a_straggler_has_trained_and_is_asked_again_in_the_next_round() -> None:
    settings = make_settings(
        rounds=2,
        aggregation__protocol="plain",
        robust__trim=1,
        federation__min_clients=5,
        simulation__stragglers=3,
        simulation__dropout=1.0,
    )
    federation = Federation(settings)
    strategy = federation.run()
    assert {round for client, round in federation.releases if client >= 9} == {1, 2}
    assert [row.finished for row in strategy.history[1:]] == [9, 9]


def test_newcomers_are_in_the_rounds_after_they_came() -> None:
    settings = make_settings(
        rounds=3,
        aggregation__protocol="plain",
        robust__trim=1,
        federation__min_clients=5,
        simulation__newcomers=4,
        simulation__newcomers_from=3,
    )
    strategy = Federation(settings).run()
    assert [row.finished for row in strategy.history[1:]] == [8, 8, 12]
