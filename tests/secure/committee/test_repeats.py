"""A round that is computed again opens the same, and no mask of it serves twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.links.in_process import play
from fedgrpo.secure.committee.round import Opened, aggregate
from fedgrpo.secure.committee.steps import MEMBERS, Member
from tests.secure.committee.rounds import Tap, component_keys, payload_of, share_out

FIRST, SECOND = bytes([1]) * 32, bytes([2]) * 32
INPUTS = bytes([3]) * 32
NOISY = Plan(6, 500, trim=1, sigma=3000.0, circuit="log")
BUCKETED = Plan(25, 500, trim=2, sigma=3000.0, circuit="log")


def attempt(plan: Plan, session: bytes, inputs: bytes, tap: Tap) -> Opened:
    """All members compute on the same shares."""
    values = np.random.default_rng(0).integers(0, 2**16, (plan.clients, plan.dimension))
    components = share_out(payload_of(values, plan))

    def member(index: int) -> Member[tuple[Opened, ...]]:
        keys = component_keys()[index]
        return aggregate(index, keys, session, [plan], components[index], inputs=inputs)

    outcomes = play({index: member(index) for index in range(MEMBERS)}, tap)
    results = [outcome[0] for outcome in outcomes.values() if isinstance(outcome, tuple)]
    assert len(results) == MEMBERS, outcomes
    return results[0]


@pytest.mark.parametrize("plan", [NOISY, BUCKETED], ids=["single", "buckets"])
def test_the_same_inputs_open_the_same_totals_in_another_attempt(plan: Plan) -> None:
    """Noise and, with many clients, their buckets: else two results would differ by no noise."""
    one, other = attempt(plan, FIRST, INPUTS, Tap()), attempt(plan, SECOND, INPUTS, Tap())
    np.testing.assert_array_equal(one.totals, other.totals)


def test_other_inputs_have_other_noise() -> None:
    one, other = attempt(NOISY, FIRST, INPUTS, Tap()), attempt(NOISY, FIRST, FIRST, Tap())
    difference = one.totals.astype(np.int64) - other.totals.astype(np.int64)
    wrapped = (difference + 2 ** (one.bits - 1)) % 2**one.bits - 2 ** (one.bits - 1)
    assert wrapped.std() == pytest.approx(NOISY.sigma * np.sqrt(2), rel=0.15)


def same_words(messages: Callable[[int], Tap], size: int = 16) -> int:
    """Places in which both attempts sent the same bytes, and enough of them to mean anything."""
    found = 0
    for one, other in zip(messages(0).messages, messages(1).messages, strict=True):
        assert one[:3] == other[:3]
        for at in range(0, len(one[3]) - size + 1, size):
            found += one[3][at : at + size] == other[3][at : at + size]
    return found


def test_attempts_share_no_masks_but_only_the_joint_coin() -> None:
    """Messages are in the same order and of the same lengths, and differ everywhere else."""
    taps = [Tap(), Tap()]
    for session, tap in zip((FIRST, SECOND), taps, strict=True):
        attempt(NOISY, session, INPUTS, tap)
    coins = MEMBERS * (MEMBERS - 1) * 2
    assert same_words(lambda i: taps[i]) <= coins
