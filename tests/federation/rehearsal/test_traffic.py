"""A forecast of bytes plays what vectors of the real size would be computed by."""

from __future__ import annotations

import numpy as np
import pytest

from fedgrpo.federation.protocols.committee.convening.plan import committee_plan
from fedgrpo.federation.rehearsal.traffic import round_traffic
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.model.adapter import AdapterState
from fedgrpo.secure.committee.compute.circuits.costs import BITS_SENT, cost
from fedgrpo.settings import Settings


@pytest.mark.slow
def test_a_members_bytes_are_those_of_the_circuit_for_the_real_size() -> None:
    dimension = 1_000_000
    settings = Settings.from_mapping(
        {
            "aggregation": {"protocol": "committee"},
            "privacy": {"unit": "none"},
            "robust": {"trim": 1},
            "federation": {"min_clients": 12},
        }
    )
    plans = {
        size: committee_plan(settings, release_plan(settings, size, 1.0), 12)
        for size in (1000, dimension)
    }
    assert plans[1000].circuit != plans[dimension].circuit
    found = round_traffic(settings, AdapterState(np.zeros(dimension, np.float32), {}, "0" * 64))
    ands = cost(plans[dimension].circuit, 12, 1, noise_bits=0).conjunctions
    # Beside the conjunctions a member sends shares of what it opens: a twentieth.
    assert found.member_sent == pytest.approx(BITS_SENT * ands * dimension / 8, rel=0.1)
