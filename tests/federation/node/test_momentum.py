"""Clients that send their mean over rounds: what arrives, a missed round, and what is refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from flwr.app import Message

from fedgrpo.federation.wire.messages import read_release
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import Scalar
from tests.federation.federation import DIMENSION, Federation, make_settings

ROUNDS, NODES, MISSED = 4, 4, (1003, 3)
SHOWN: dict[str, Scalar] = {
    "rounds": ROUNDS,
    "aggregation__protocol": "plain",
    "robust__rule": "mean",
    "federation__min_clients": 3,
    "privacy__max_epsilon": 1e6,
}
PRIVATE: dict[str, Scalar] = {"privacy__unit": "client", "privacy__noise_multiplier": 2.0}


@pytest.mark.parametrize("private", [{}, PRIVATE], ids=["none", "client"])
def test_each_client_sends_the_weighted_mean_of_what_it_would_have_released(
    private: dict[str, Scalar],
) -> None:
    """Its noise included: a mean of noised releases is post-processing. Figures stay the round's;
    and a client that misses a round goes on from where it was.
    """
    settings = make_settings(**SHOWN, **private, robust__momentum=0.8)
    size = release_plan(settings, DIMENSION, 1.0).size
    asked, arrived = Counter[int](), dict[tuple[int, int], np.ndarray]()

    def drop(stage: str, node: int) -> bool:
        asked[node] += stage == "train"
        return (node, asked[node]) == MISSED

    def tamper(stage: str, node: int, reply: Message) -> Message:
        arrived[node, asked[node]] = read_release(reply.content, size)
        return reply

    federation = Federation(settings, NODES, drop=drop, tamper=tamper)
    federation.run()
    assert len(arrived) == ROUNDS * NODES - 1
    for (node, round), release in arrived.items():
        known = sorted(r for p, r in federation.releases if p == node - 1001 and r <= round)
        made = np.array([federation.releases[node - 1001, r] for r in known])
        weights = 0.8 ** np.arange(len(made))[::-1]
        mean = weights @ made / weights.sum()
        np.testing.assert_allclose(release[:DIMENSION], mean[:DIMENSION], rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(release[DIMENSION:], made[-1, DIMENSION:].astype(np.float32))


@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_with_noise_after_the_rule_it_is_refused(unit: str) -> None:
    with pytest.raises(SettingsError, match="would send again in later rounds") as refused:
        make_settings(privacy__unit=unit, privacy__noise="server", robust__momentum=0.9)
    assert "costs no epsilon" in refused.value.cure
    make_settings(privacy__unit="none", privacy__noise="server", robust__momentum=0.9)


def test_in_buckets_with_noise_by_clients_it_is_refused() -> None:
    """A release would be in several sums, each with other peers' noise, which a mean takes off."""
    with pytest.raises(SettingsError, match="among other peers' noise"):
        make_settings(**PRIVATE, robust__momentum=0.9)
    make_settings(privacy__unit="none", robust__momentum=0.9)
