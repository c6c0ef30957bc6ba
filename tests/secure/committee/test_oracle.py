"""The committee agrees with MPyC, a library that shares no line with this one."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import pytest

from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.circuits.trimming import CIRCUITS
from tests.secure.committee.rounds import Values, opened


@pytest.fixture(scope="module")
def mpc() -> Any:
    """MPyC's runtime, which reads the command line when it is imported."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    level = logging.getLogger().level
    try:
        return pytest.importorskip("mpyc.runtime").mpc
    finally:
        sys.argv = arguments
        logging.getLogger().setLevel(level)


def trimmed_by_mpyc(mpc: Any, values: Values, trim: int) -> list[int]:
    number = mpc.SecInt(24)

    async def compute() -> list[int]:
        totals = []
        for column in values.T:
            ordered = mpc.sorted([number(int(value)) for value in column])
            totals.append(mpc.sum(ordered[trim : len(ordered) - trim]))
        return [int(total) for total in await mpc.output(totals)]

    result: list[int] = mpc.run(compute())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize(("clients", "trim"), [(5, 1), (8, 2), (10, 3)])
def test_trimmed_sum_equals_mpycs(mpc: Any, clients: int, trim: int, circuit: str) -> None:
    values = np.random.default_rng(clients).integers(0, 2**16, (clients, 6))
    values[:, 0] = values[0, 0]
    values[: clients // 2, 1] = 2**16 - 1
    result = opened(values, Plan(clients, 6, trim=trim, circuit=circuit))
    assert [int(total) for total in result.totals] == trimmed_by_mpyc(mpc, values, trim)
