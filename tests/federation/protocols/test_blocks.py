"""Blocks and the disk are a matter of memory: a round comes to the same bits, and holds less."""

from __future__ import annotations

import tracemalloc
from functools import partial
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from flwr.app import Message

from fedgrpo.federation.protocols import means
from fedgrpo.federation.protocols.buckets import secure_round
from fedgrpo.federation.protocols.plain import server
from fedgrpo.federation.protocols.spool import Spool
from fedgrpo.federation.wire.codec import Header, encode
from fedgrpo.federation.wire.messages import Unmasked
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.robust.rules import combine_blocks
from fedgrpo.settings import Settings
from tests.federation.federation import Federation, make_settings, vector_of

WAYS = {
    "plain": {"robust__trim": 2, "federation__min_clients": 5},
    "plain, whole vectors": {
        "robust__rule": "nnm_trimmed_mean",
        "robust__trim": 2,
        "federation__min_clients": 5,
    },
    # One bucket: who is in which is drawn anew for each federation.
    "buckets": {"robust__trim": 0, "secure__bucket_size": 4, "federation__min_clients": 4},
}


@pytest.mark.parametrize("way", WAYS)
def test_on_the_disk_and_in_small_blocks_a_round_comes_to_the_same_bits(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(aggregation__protocol=way.split(",", maxsplit=1)[0], **WAYS[way])
    nodes = 4 if way == "buckets" else 12
    whole = vector_of(Federation(settings, nodes).run())
    monkeypatch.setattr(server, "Spool", partial(Spool, in_memory=0))
    monkeypatch.setattr(secure_round, "Spool", partial(Spool, in_memory=40))
    monkeypatch.setattr(means, "_BLOCK_BYTES", 8 * 12 * 3)
    by_blocks = vector_of(Federation(settings, nodes).run())
    assert whole.any()
    assert by_blocks.tobytes() == whole.tobytes()


def test_beyond_its_bound_the_server_holds_a_block_of_the_releases_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "Spool", partial(Spool, in_memory=0))
    clients, dimension = 40, 400_000
    tree = {"aggregation": {"protocol": "plain"}, "privacy": {"unit": "none"}}
    plan = release_plan(Settings.from_mapping(tree), dimension, 1.0)
    vector = np.random.default_rng(0).normal(size=plan.size).astype(np.float32)
    releases = server.Releases(plan)
    tracemalloc.start()
    try:
        for node in range(clients):
            content = encode(Header(1, 1), Unmasked(vector))
            reply = SimpleNamespace(content=content, has_content=lambda: True)
            releases.take(node, cast(Message, reply))
        groups = releases.groups({node: releases.place(node) for node in range(clients)})
        combined = combine_blocks("trimmed_mean", groups.blocks, (clients, plan.size), 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(combined, np.clip(vector, -plan.bound, plan.bound), rtol=1e-12)
    block = 8 * clients * means.block_size(clients)
    assert peak < 1.6 * block + 8 * 4 * plan.size < 4 * clients * plan.size
