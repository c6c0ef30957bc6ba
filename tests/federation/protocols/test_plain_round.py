"""A server that is trusted with single releases: what the round computes, and who must agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import trim_mean

from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.wire.messages import KeptBasis, write_adapter
from fedgrpo.settings import METRICS
from fedgrpo.site import Refusal
from tests.federation.federation import (
    DIMENSION,
    FakeClient,
    Federation,
    make_adapter,
    make_settings,
    small_delta,
    vector_of,
)
from tests.federation.packed import record_of
from tests.federation.sites import EVERYTHING, PUBLIC, FakeClock, make_site

TOLERANCE = 1e-7  # The adapter is float32.
PLAIN = {"aggregation__protocol": "plain", "robust__trim": 2, "federation__min_clients": 5}


def trimmed(partitions, trim=2):
    deltas = np.stack([small_delta(partition, 1) for partition in partitions])
    return trim_mean(deltas, trim / len(deltas) + 1e-9, axis=0)


def test_the_aggregate_is_the_trimmed_mean_of_single_clients():
    federation = Federation(make_settings(**PLAIN))
    strategy = federation.run()
    assert np.abs(vector_of(strategy) - trimmed(range(12))).max() < TOLERANCE
    assert {stage for stage, _ in federation.grid.sent} == {"train"}
    assert strategy.history[-1].buckets == 12


def test_server_noise_is_scaled_to_what_one_prompt_moves_the_trimmed_mean_by():
    dimension, prompts, noise = 40_000, 24, 2.0
    settings = make_settings(
        **PLAIN,
        privacy__unit="prompt",
        privacy__noise="server",
        privacy__noise_multiplier=noise,
        privacy__max_epsilon=1e6,
    )
    federation = Federation(settings, delta=lambda *_: np.zeros(dimension))
    strategy = federation.run(adapter=make_adapter(dimension))
    # z C / (B (n - 2k)), and 1 / sqrt(1 - a) where metrics take the share a. 6.5 standard errors.
    expected = noise / (prompts * (12 - 4)) / np.sqrt(1 - settings.privacy.metrics_share)
    assert abs(vector_of(strategy).std() / expected - 1) < 6.5 / np.sqrt(2 * dimension)


def test_two_colluders_move_the_result_no_further_than_the_honest_range():
    settings = make_settings(
        **PLAIN,
        rounds=2,
        simulation__byzantine=2,
        simulation__attack="collude",
        simulation__boost=100.0,
    )
    first = Federation(settings.model_copy(update={"rounds": 1})).run()
    second = Federation(settings).run()
    step = vector_of(second) - vector_of(first)
    honest = np.stack([small_delta(partition, 2) for partition in range(2, 12)])
    assert (honest.min(0) - TOLERANCE <= step).all()
    assert (step <= honest.max(0) + TOLERANCE).all()


@pytest.mark.parametrize(
    "bad",
    [
        np.full(DIMENSION + len(METRICS), np.nan, np.float32),
        np.zeros(DIMENSION, np.float32),
        np.zeros(DIMENSION + len(METRICS)),
    ],
    ids=["not finite", "short", "float64"],
)
def test_a_bad_release_costs_only_its_sender(bad):
    def tamper(stage, node, reply):
        if node == 1004:
            reply.content["Unmasked.arrays"] = record_of(vector=bad)
        return reply

    strategy = Federation(make_settings(**PLAIN), tamper=tamper).run()
    rest = [partition for partition in range(12) if partition != 3]
    assert np.abs(vector_of(strategy) - trimmed(rest)).max() < TOLERANCE
    assert strategy.state.progress.dropped == 1


def test_a_round_with_too_few_clients_is_skipped():
    federation = Federation(
        make_settings(**(PLAIN | {"federation__min_clients": 12})),
        drop=lambda stage, node: node == 1001,
    )
    strategy = federation.run()
    assert not vector_of(strategy).any()
    assert "11 of 12" in strategy.history[-1].reason


def deployed(settings, policy, folder):
    """A federation of nodes that no simulation made, each with a policy or none."""
    clients = itertools.cycle(range(12))
    configs = []
    for number in range(12):
        configs.append(make_site(folder / f"{number}", policy or ""))
        if policy is None:
            (folder / f"{number}" / "policy.toml").unlink()
    return LocalGrid(
        make_client_app(lambda *_: FakeClient(next(clients), small_delta, {}), clock=FakeClock()),
        12,
        node_config=lambda number: configs[number],
        run_config=settings.to_run_config(),
    )


def test_frozen_tensors_are_sent_until_a_node_has_kept_them_and_when_it_lost_them(tmp_path):
    grid = deployed(make_settings(**PLAIN, rounds=4), PUBLIC + EVERYTHING, tmp_path)
    push, named = grid.push_messages, []

    def watched(messages):
        listed = list(messages)
        named.append([KeptBasis.__name__ in message.content for message in listed])
        if len(named) == 3:
            for note in (tmp_path / "0").glob(".*/basis-*"):
                note.unlink()
        return push(listed)

    grid.push_messages = watched
    strategy = FedGRPO(make_settings(**PLAIN, rounds=4))
    strategy.start(grid, write_adapter(make_adapter()))
    assert named == [[False] * 12, [True] * 12, [True] * 12, [False] + [True] * 11]
    assert [row.finished for row in strategy.history[1:]] == [12, 12, 11, 12]


def test_a_node_shows_its_vector_only_where_its_policy_says_so(tmp_path):
    settings = make_settings(**PLAIN)
    policy = PUBLIC + EVERYTHING
    trusting = FedGRPO(settings)
    trusting.start(deployed(settings, policy, tmp_path / "yes"), write_adapter(make_adapter()))
    assert np.abs(vector_of(trusting) - trimmed(range(12))).max() < TOLERANCE
    masked = policy.replace('protocols = ["*"]', 'protocols = ["buckets"]')
    for name, refusing in (("masked", masked), ("none", None)):
        wary = FedGRPO(settings)
        wary.start(deployed(settings, refusing, tmp_path / name), write_adapter(make_adapter()))
        assert not vector_of(wary).any()
        code = Refusal.PROTOCOL if refusing else Refusal.UNIT
        assert f"12 x refused, {code}: " in wary.history[-1].reason
