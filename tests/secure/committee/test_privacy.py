"""Nothing that a single member sees depends on what it must not learn.

Lanes of a plane do not touch each other, so one round over many coordinates with the same values is
as many rounds. Each gets other values of the masks that the observed member does not know, until
all have occurred: what it is sent then shows the whole distribution of its view, and the views of
two inputs are compared exactly, without statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from fedgrpo.ground.crypto import derive
from fedgrpo.secure.committee.compute import four_party
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.four_party import PAIRS
from fedgrpo.secure.committee.compute.inbox import Inbox
from fedgrpo.secure.committee.compute.planes import LANES, Words, slice_planes
from fedgrpo.secure.committee.compute.streams import TAG_BYTES, MaskStream
from fedgrpo.secure.committee.keys.identity import context, keepers
from fedgrpo.secure.committee.links.in_process import play
from fedgrpo.secure.committee.round import aggregate, bind
from fedgrpo.secure.committee.steps import MEMBERS
from tests.secure.committee.rounds import SESSION, Tap, component_keys

pytestmark = pytest.mark.slow

GATES = 6
"""ANDs of the median of three bits: three comparators, a comparison and a swap each."""
STREAMS = 3
"""Of masks that the observed member does not know."""
OPENING = GATES + 2
"""Step of the opening, after greeting, ANDs and confirmation."""
INPUTS = list(product((0, 1), repeat=3))
Masks = Callable[[int, int], tuple[int, int] | None]
"""``(stream, gate) -> (stream, gate)`` whose mask is used; None for no mask at all."""


def as_designed(stream: int, gate: int) -> tuple[int, int]:
    return stream, gate


def forgotten_once(stream: int, gate: int) -> tuple[int, int] | None:
    return None if gate == 3 else (stream, gate)


def used_twice(stream: int, gate: int) -> tuple[int, int]:
    return stream, 2 if gate == 3 else gate


class Observation:
    """One member's view of the median of three bits, over all masks that it does not know.

    Parameters
    ----------
    observer:
        The member observed.
    masks:
        Which masks the others use.
    """

    def __init__(self, observer: int, masks: Masks) -> None:
        self.observer, self.masks = observer, masks
        # The others send the observer three halves of a plane for each AND.
        self.lanes = 1 << GATES * STREAMS
        self.dimension = self.lanes * 2
        self.plan = Plan(3, self.dimension, rule="median", bits=1)
        session = bind(SESSION, [self.plan])
        keeper = component_keys()[(observer + 1) % MEMBERS].for_session(session)
        names = [context(session, "mask", observer, other) for other in keepers(observer)]
        self.unknown = {derive(keeper.keys[observer], name): at for at, name in enumerate(names)}

    def view(self, values: tuple[int, ...]) -> NDArray[np.int64]:
        """What the observer is sent in each lane, sorted: every view as often as it occurs."""
        tap = Tap()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(four_party, "MaskStream", lambda key: Enumerated(self, key))
            self._play(values, tap)
        view = np.zeros(self.lanes, np.int64)
        for number, plane in enumerate(self._received(tap)):
            view |= plane.astype(np.int64) << number
        return np.sort(view)

    def _play(self, values: tuple[int, ...], tap: Tap) -> None:
        """Share the values such that the components that the observer holds are always the same."""
        bits = np.random.default_rng(7).integers(0, 2, (MEMBERS, 3))
        bits[self.observer] = 0
        bits[self.observer] = np.array(values) ^ bits.sum(axis=0) % 2
        words = self.dimension // LANES
        shares = [np.repeat(-row[:, None], words, axis=1).astype(np.uint64) for row in bits]
        held = [{m: shares[m] for m in keepers(i)} for i in range(MEMBERS)]
        members = {
            i: aggregate(i, component_keys()[i], SESSION, [self.plan], held[i])
            for i in range(MEMBERS)
        }
        for outcome in play(members, tap).values():
            assert isinstance(outcome, tuple)
            assert (outcome[0].totals == sorted(values)[1]).all()

    def _received(self, tap: Tap) -> Iterator[NDArray[np.uint8]]:
        """Planes of bits that the observer was sent; tags follow from those and its keys."""
        inboxes: dict[int, dict[int, bytes]] = {}
        for step, sender, receiver, message in tap.messages:
            if receiver == self.observer:
                inboxes.setdefault(step, {})[sender] = message
        for step in [*range(1, GATES + 1), OPENING]:
            payload = b"".join(self._payloads(inboxes[step], step == OPENING))
            planes = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
            yield from planes.reshape(-1, self.lanes)

    def _payloads(self, messages: dict[int, bytes], opening: bool) -> Iterator[bytes]:
        if opening:
            yield from (message for message in messages.values() if len(message) != TAG_BYTES)
            return
        inbox = Inbox(messages)
        for link in (link for pair in PAIRS for link in pair if link.receiver == self.observer):
            yield inbox.take(link.sender, self.lanes // 8)
            inbox.take(link.checker, TAG_BYTES)
        inbox.close()


class Enumerated:
    """Stands for a mask stream: constant where the observer knows it, else all values in turn."""

    def __init__(self, observation: Observation, key: bytes) -> None:
        self._observation = observation
        self._stream = observation.unknown.get(key)
        self._known = MaskStream(key)
        self._gate = -1

    def words(self, count: int) -> Words:
        self._gate += 1
        if self._stream is None:
            return np.repeat(np.uint64(0) - (self._known.words(1) & np.uint64(1)), count)
        source = self._observation.masks(self._stream, self._gate)
        if source is None:
            return np.zeros(count, np.uint64)
        bit = source[0] * GATES + source[1]
        return np.asarray(slice_planes(np.arange(count * LANES) >> bit & 1, 1)[0])


def same_result(median: int) -> list[tuple[int, ...]]:
    return [values for values in INPUTS if sorted(values)[1] == median]


@pytest.mark.parametrize("observer", range(MEMBERS))
@pytest.mark.parametrize("median", [0, 1])
def test_a_members_view_is_distributed_alike_for_all_inputs_of_one_result(
    observer: int, median: int
) -> None:
    observation = Observation(observer, as_designed)
    first, *others = (observation.view(values) for values in same_result(median))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("observer", range(MEMBERS))
def test_every_sequence_of_messages_is_as_likely_as_any_other(observer: int) -> None:
    view = Observation(observer, as_designed).view((0, 1, 1))
    messages = np.sort(view & (1 << GATES * STREAMS) - 1)
    np.testing.assert_array_equal(messages, np.arange(len(view)))


@pytest.mark.parametrize("broken", [forgotten_once, used_twice])
@pytest.mark.parametrize("observer", range(MEMBERS))
def test_a_mask_forgotten_or_used_twice_would_be_noticed(observer: int, broken: Masks) -> None:
    observation = Observation(observer, broken)
    views = [observation.view(values) for values in (*same_result(0), *same_result(1))]
    half = len(views) // 2
    assert any((view != group[0]).any() for group in (views[:half], views[half:]) for view in group)


def test_greeting_and_confirmation_do_not_depend_on_inputs() -> None:
    taps = []
    for values in ((0, 0, 0), (1, 1, 1)):
        taps.append(Tap())
        Observation(0, as_designed)._play(values, taps[-1])
    for before, after in zip(taps[0].messages, taps[1].messages, strict=True):
        assert before[:3] == after[:3]
        if before[0] in (0, OPENING - 1):
            assert before[3] == after[3]
