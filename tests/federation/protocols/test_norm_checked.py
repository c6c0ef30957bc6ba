"""The norm-checked mean in a federation: who projects, who checks, and what the radius follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.server.parts import check_parts
from fedgrpo.federation.wire.plans import following_radius, release_plan
from fedgrpo.ground.errors import ProtocolError, SettingsError
from fedgrpo.privacy.grid import grid_sum
from fedgrpo.privacy.release import release_prompts
from fedgrpo.settings import METRICS, Scalar, Settings
from tests.federation.federation import DIMENSION, Federation, make_settings, vector_of
from tests.federation.protocols.committee.rounds import COMMITTEE

PROMPTS = 8
CHECKED: dict[str, Scalar] = {"robust__rule": "norm_checked", "federation__min_clients": 9}
PRIVATE: dict[str, Scalar] = CHECKED | {
    "privacy__unit": "prompt",
    "privacy__noise": "server",
    "privacy__noise_multiplier": 0.01,
    "privacy__max_epsilon": 1e9,
    "privacy__adaptive": False,
    "grpo__prompts_per_step": PROMPTS,
    "grpo__steps": 1,
}


class Unanimous:
    """A client of many prompts that all pull the same way, so that its release is long."""

    def __init__(self, settings: Settings, node_config: Mapping[str, Scalar]) -> None:
        self.partition = int(node_config["partition-id"])

    def contribute(self, adapter: Any, plan: Any, round: int, key: bytes, watch: Any) -> Any:
        directions = np.zeros((PROMPTS, DIMENSION))
        directions[:, self.partition % 2] = 5.0
        metrics = np.full((PROMPTS, len(METRICS)), 0.75)
        return release_prompts(grid_sum(directions, metrics, plan.clipping_norm), plan, key)


def unanimous(protocol: str, **changed: Scalar) -> Federation:
    private = PRIVATE | {"aggregation__protocol": protocol} | changed
    return Federation(make_settings(**private), client=Unanimous)


def in_releases_units(strategy: FedGRPO, settings: Settings) -> Any:
    """The only step, as the released update in the units of releases."""
    return vector_of(strategy) * release_plan(settings, DIMENSION, 1.0).update_scale


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["plain", "committee"])
def test_clients_project_their_updates_on_the_rounds_ball(protocol: str) -> None:
    federation = unanimous(protocol)
    step = in_releases_units(federation.run(), federation.settings)
    # Half of the clients lie along each of two axes, all of them beyond the ball.
    radius = math.sqrt(1 / 16 + 1 / PROMPTS)
    np.testing.assert_allclose(step, [radius / 2, radius / 2, 0, 0, 0, 0], atol=1e-3)


def test_over_buckets_the_server_projects_the_means() -> None:
    federation = unanimous("buckets")
    step = in_releases_units(federation.run(), federation.settings)
    radius = math.sqrt(1 / 16 + 1 / (3 * PROMPTS))
    assert np.linalg.norm(step) <= radius + 1e-3
    assert step[:2].sum() >= radius - 1e-3


def test_the_radius_of_the_next_round_follows_from_what_was_released() -> None:
    federation = unanimous("plain", rounds=3)
    strategy = FedGRPO(federation.settings)
    radii = [release_plan(federation.settings, DIMENSION, 1.0).radius]
    federation.run(strategy)
    for _ in range(3):
        radii.append(math.sqrt(radii[-1] ** 2 / 2 + 1 / PROMPTS))
    assert strategy.state is not None
    assert strategy.state.progress.radius == pytest.approx(radii[-1], rel=1e-3)


def test_single_vectors_outside_count_as_zero() -> None:
    attacked = {"simulation__byzantine": 2, "simulation__attack": "constant"}
    settings = make_settings(**CHECKED | {"aggregation__protocol": "plain"} | attacked)
    federation = Federation(settings)
    honest = sum(federation.delta(partition, 1) for partition in range(2, 12))
    vector = vector_of(federation.run())
    np.testing.assert_allclose(vector, honest / 12, atol=1e-4)


def test_attackers_within_the_ball_move_the_mean_by_their_share() -> None:
    attacked = {"simulation__byzantine": 2, "simulation__attack": "ipm_own(limited=True)"}
    federation = unanimous("plain", **attacked)
    step = in_releases_units(federation.run(), federation.settings)
    radius = math.sqrt(1 / 16 + 1 / PROMPTS)
    assert np.linalg.norm(step) >= (10 / math.sqrt(2) - 2) / 12 * radius - 1e-3
    assert (step[:2] > 0).all()


def test_the_noises_own_length_is_taken_off_the_radius() -> None:
    settings = make_settings(
        **PRIVATE | {"privacy__noise_multiplier": 1.0, "aggregation__protocol": "plain"}
    )
    plan = release_plan(settings, 4000, 1.0)
    noise = np.random.default_rng(0).normal(size=4000) / (12 * PROMPTS)
    signal = np.zeros(4000)
    signal[0] = 0.2
    radius = following_radius(settings, plan, (signal + noise) / plan.update_scale, 12)
    assert radius == pytest.approx(math.sqrt(0.04 + 1 / PROMPTS), rel=0.05)


def test_a_radius_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"radius 0\.5 is none"):
        release_plan(make_settings(), DIMENSION, 1.0, 0.5)
    for radius in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ProtocolError, match=r"is none for robust\.rule = 'norm_checked'"):
            release_plan(make_settings(**CHECKED), DIMENSION, 1.0, radius)


def test_with_noise_by_clients_it_is_refused() -> None:
    with pytest.raises(SettingsError, match="how long a release is") as refused:
        make_settings(**PRIVATE | {"privacy__noise": "client"})
    assert "nnm_trimmed_mean" in refused.value.cure


def test_a_committee_refuses_the_mean_and_names_the_rule_that_takes_its_place() -> None:
    for rule in ("mean", "nnm_trimmed_mean"):
        with pytest.raises(SettingsError, match="cannot be computed by a committee") as refused:
            make_settings(**COMMITTEE | {"robust__rule": rule})
        assert "norm_checked" in refused.value.cure


@pytest.mark.parametrize("rule", ["nnm_trimmed_mean", "multi_krum(keep=3)", "centred_clipping"])
def test_rules_over_distances_are_refused_with_noise_after_them(rule: str) -> None:
    with pytest.raises(SettingsError, match="flip who is whose neighbour"):
        check_parts(make_settings(**PRIVATE | {"robust__rule": rule}))
    check_parts(make_settings(**PRIVATE | {"robust__rule": rule, "privacy__noise": "client"}))
    check_parts(make_settings(robust__rule=rule))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["plain", "buckets"])
@pytest.mark.parametrize("rule", ["nnm_trimmed_mean", "geometric_median", "centred_clipping"])
def test_rules_over_distances_serve_where_nothing_is_added_after(protocol: str, rule: str) -> None:
    settings = make_settings(
        robust__rule=rule,
        aggregation__protocol=protocol,
        rounds=2,
        simulation__byzantine=1,
        simulation__attack="reverse_boost",
    )
    federation = Federation(settings)
    strategy = federation.run()
    honest = sum(
        np.mean([federation.delta(partition, round) for partition in range(1, 12)], axis=0)
        for round in (1, 2)
    )
    assert np.linalg.norm(vector_of(strategy) - honest) < 0.5 * 0.05 * math.sqrt(2 * DIMENSION)
    assert strategy.state is not None
    assert strategy.state.last.size == DIMENSION, "a rule or an attacker may look at it"
