"""Rounds of a whole committee in one process, and the plaintext they must equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.planes import Words, slice_planes
from fedgrpo.secure.committee.keys.identity import ComponentKeys, keepers
from fedgrpo.secure.committee.links.in_process import Carrier, deliver, play
from fedgrpo.secure.committee.round import Opened, aggregate
from fedgrpo.secure.committee.steps import MEMBERS, Member

SESSION = bytes(range(32))
Values = NDArray[np.int64]


def component_keys(seed: int = 0) -> tuple[ComponentKeys, ...]:
    """Keys of four members, fixed for repeatable tests."""
    words = np.random.default_rng(seed).bytes(32 * MEMBERS)
    keys = [words[32 * m :][:32] for m in range(MEMBERS)]
    return tuple(ComponentKeys({m: keys[m] for m in keepers(i)}) for i in range(MEMBERS))


def share_out(payload: Words, seed: int = 0) -> tuple[dict[int, Words], ...]:
    """Components of payloads (clients, words) at each member."""
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, 2**64, payload.shape, np.uint64) for _ in range(MEMBERS - 1)]
    parts.append(payload ^ np.bitwise_xor.reduce(parts))
    return tuple({m: parts[m] for m in keepers(i)} for i in range(MEMBERS))


def payload_of(values: Values, plan: Plan) -> Words:
    """Encoded values (clients, d) as the clients deal them."""
    return slice_planes(values, plan.bits).reshape(len(values), -1)


def members(
    values: Sequence[Values],
    plans: Sequence[Plan],
    keys: Sequence[ComponentKeys] = component_keys(),
    seed: int = 0,
) -> Callable[[int], Member[tuple[Opened, ...]]]:
    """Make members of a round over these values, one array (clients, d) for each plan."""
    payload = np.concatenate(
        [payload_of(v, plan) for v, plan in zip(values, plans, strict=True)], axis=1
    )
    components = share_out(payload, seed)

    def member(index: int) -> Member[tuple[Opened, ...]]:
        return aggregate(index, keys[index], SESSION, plans, components[index])

    return member


def opened(values: Values, plan: Plan, carrier: Carrier = deliver) -> Opened:
    """What all four members open, which must be the same."""
    member = members([values], [plan])
    outcomes = play({index: member(index) for index in range(MEMBERS)}, carrier)
    results = [outcome for outcome in outcomes.values() if isinstance(outcome, tuple)]
    assert len(results) == MEMBERS, outcomes
    for result in results[1:]:
        np.testing.assert_array_equal(result[0].totals, results[0][0].totals)
    return results[0][0]


def trimmed_sum(values: Values, trim: int) -> NDArray[np.uint64]:
    """Plain numpy: sort each coordinate, sum the middle."""
    middle = np.sort(values, axis=0)[trim : len(values) - trim]
    return np.asarray(middle.sum(axis=0), np.uint64)


class Tap:
    """A carrier that records messages and may alter one: ``alter(step, sender, receiver, bytes)``.

    Parameters
    ----------
    alter:
        What arrives instead of a message; None where nothing does.
    """

    def __init__(self, alter: Callable[[int, int, int, bytes], bytes | None] | None = None) -> None:
        self.messages: list[tuple[int, int, int, bytes]] = []
        self._alter = alter
        self._steps: Counter[tuple[int, int]] = Counter()

    def __call__(self, sender: int, receiver: int, message: bytes) -> bytes | None:
        step = self._steps[sender, receiver]
        self._steps[sender, receiver] += 1
        self.messages.append((step, sender, receiver, message))
        return self._alter(step, sender, receiver, message) if self._alter else message
