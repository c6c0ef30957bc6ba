"""Settings of a committee's rounds, and what such a round has to come to."""

from __future__ import annotations

import numpy as np

from fedgrpo.federation.protocols.committee.convening.plan import encoding_of, payload_of
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.secure.committee.compute.planes import join_planes
from tests.federation.federation import DIMENSION

COMMITTEE = {
    "aggregation__protocol": "committee",
    "privacy__noise": "server",
    "robust__trim": 2,
    "federation__min_clients": 7,
}


def of_encoded(federation, partitions, trim=2, round=1):
    """The plaintext trimmed mean of encoded releases, as an update: plain numpy."""
    settings = federation.settings
    plan = release_plan(settings, DIMENSION, settings.privacy.clipping_norm)
    encoding = encoding_of(plan)
    releases = [federation.releases[partition, round] for partition in partitions]
    words = [payload_of(release, plan).reshape(encoding.bits, -1) for release in releases]
    values = np.stack([join_planes(planes, plan.size) for planes in words]).astype(np.int64)
    kept = np.sort(values, axis=0)[trim : len(values) - trim] - encoding.offset
    mean = kept.sum(axis=0) * encoding.step / len(kept)
    return (mean[:DIMENSION] / plan.update_scale).astype(np.float32)
