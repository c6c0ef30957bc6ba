"""One malicious member is found out before anything is opened, whatever it sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedgrpo.ground.errors import FedGRPOError, OpenedError, ProtocolError
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.keys.identity import ComponentKeys
from fedgrpo.secure.committee.links.in_process import GaveUpError, play, run
from fedgrpo.secure.committee.round import Opened, aggregate
from fedgrpo.secure.committee.steps import MEMBERS, Member
from tests.secure.committee.rounds import (
    SESSION,
    Tap,
    component_keys,
    members,
    payload_of,
    share_out,
)

pytestmark = pytest.mark.slow

PLAN = Plan(3, 128, rule="median", bits=2)
VALUES = np.random.default_rng(0).integers(0, 4, (3, 128))
MAKE = members([VALUES], [PLAN])
Alter = Callable[[int, int, int, bytes], bytes | None]


def trace() -> list[tuple[int, int, int, bytes]]:
    tap = Tap()
    run(MAKE, carrier=tap)
    return tap.messages


HONEST = trace()
LAST = max(step for step, *_ in HONEST)
"""The step of the opening; the one before is the confirmation."""


def play_altered(alter: Alter) -> tuple[dict[int, tuple[Opened, ...] | FedGRPOError], Tap]:
    tap = Tap(alter)
    return play({index: MAKE(index) for index in range(MEMBERS)}, tap), tap


def flip(message: bytes, bit: int) -> bytes:
    number = int.from_bytes(message, "little") ^ (1 << bit)
    return number.to_bytes(len(message), "little")


@pytest.mark.parametrize("seed", range(10))
def test_every_flipped_bit_is_detected_before_opening(seed: int) -> None:
    rng = np.random.default_rng(seed)
    computation = [message for message in HONEST if message[0] < LAST - 1]
    for _ in range(120):
        step, sender, receiver, message = computation[rng.integers(len(computation))]
        bit = int(rng.integers(8 * len(message)))

        def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
            return flip(sent, bit) if (s, a, b) == (step, sender, receiver) else sent  # noqa: B023

        outcomes, tap = play_altered(alter)
        error = outcomes[receiver]
        assert isinstance(error, ProtocolError)
        assert f"member {sender}" in str(error)
        assert all(isinstance(outcome, FedGRPOError) for outcome in outcomes.values())
        assert max(step for step, *_ in tap.messages) < LAST


@pytest.mark.parametrize("receiver", range(MEMBERS))
def test_a_member_that_is_not_confirmed_to_opens_nothing(receiver: int) -> None:
    for sender in set(range(MEMBERS)) - {receiver}:

        def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
            hit = (s, a, b) == (LAST - 1, sender, receiver)  # noqa: B023
            return flip(sent, 77) if hit else sent

        outcomes, tap = play_altered(alter)
        with pytest.raises(ProtocolError, match=f"member {sender}: it does not confirm"):
            raise outcomes[receiver]  # type: ignore[misc]
        assert not [s for step, s, *_ in tap.messages if step == LAST and s == receiver]


def test_a_member_that_alters_everything_it_sends_is_detected_at_once() -> None:
    for cheat in range(MEMBERS):
        for first in range(LAST - 1):

            def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
                return flip(sent, s % 8) if a == cheat and s >= first else sent  # noqa: B023

            outcomes, tap = play_altered(alter)
            honest = [outcomes[index] for index in range(MEMBERS) if index != cheat]
            assert all(isinstance(outcome, ProtocolError) for outcome in honest)
            assert max(step for step, *_ in tap.messages) <= first + 1


@pytest.mark.parametrize("receiver", range(MEMBERS))
def test_an_altered_opening_is_refused_and_counts_as_released(receiver: int) -> None:
    for step, sender, to, message in HONEST:
        if step == LAST and to == receiver and message:

            def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
                hit = (s, a, b) == (LAST, sender, receiver)  # noqa: B023
                return flip(sent, 3) if hit else sent

            outcomes, _ = play_altered(alter)
            with pytest.raises(OpenedError, match=f"member {sender}"):
                raise outcomes[receiver]  # type: ignore[misc]


@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b""])
def test_a_message_cut_short_or_long_names_its_sender(change: Callable[[bytes], bytes]) -> None:
    for step in range(LAST):

        def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
            return change(sent) if (s, a, b) == (step, 2, 1) else sent  # noqa: B023

        outcomes, _ = play_altered(alter)
        with pytest.raises(ProtocolError, match="committee member 2: its message"):
            raise outcomes[1]  # type: ignore[misc]


def test_another_step_replayed_is_detected() -> None:
    kept = {(step, s, r): message for step, s, r, message in HONEST}
    for step in range(2, LAST - 1):

        def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
            return kept[step - 1, a, b] if (s, a) == (step, 3) else sent  # noqa: B023

        outcomes, _ = play_altered(alter)
        assert not any(isinstance(outcome, tuple) for outcome in outcomes.values())


def cheat_with(
    keys: ComponentKeys | None = None, plan: Plan = PLAN, session: bytes = SESSION
) -> Callable[[int], Member[tuple[Opened, ...]]]:
    """A round in which member 1 has other keys, another plan or another session."""
    components = share_out(payload_of(VALUES, PLAN))

    def member(index: int) -> Member[tuple[Opened, ...]]:
        own = component_keys()[index]
        if index == 1:
            return aggregate(index, keys or own, session, [plan], components[index])
        return aggregate(index, own, SESSION, [PLAN], components[index])

    return member


def test_a_member_with_a_wrong_key_is_named() -> None:
    for wrong in (0, 2, 3):
        keys = dict(component_keys()[1].keys) | {wrong: bytes(32)}
        with pytest.raises(ProtocolError, match="committee member 1: it"):
            run(cheat_with(ComponentKeys(keys)))
        outcomes = play({i: cheat_with(ComponentKeys(keys))(i) for i in range(MEMBERS)})
        named = [str(o) for i, o in outcomes.items() if i not in (1, wrong)]
        assert all("member 1: it holds another component key" in error for error in named)


def test_members_with_different_settings_or_rounds_are_named() -> None:
    for member in (
        cheat_with(plan=replace(PLAN, circuit="log")),
        cheat_with(session=bytes(32)),
    ):
        outcomes = play({index: member(index) for index in range(MEMBERS)})
        for index in (0, 2, 3):
            with pytest.raises(ProtocolError, match="member 1: it has another round, other settin"):
                raise outcomes[index]  # type: ignore[misc]


def test_an_old_rounds_message_is_refused() -> None:
    old = Tap()
    components = share_out(payload_of(VALUES, PLAN))
    play(
        {
            i: aggregate(i, component_keys()[i], bytes(32), [PLAN], components[i])
            for i in range(MEMBERS)
        },
        old,
    )
    kept = {(step, s, r): message for step, s, r, message in old.messages}
    for first in range(LAST):
        outcomes, _ = play_altered(
            lambda s, a, b, sent: kept[s, a, b] if a == 0 and s >= first else sent  # noqa: B023
        )
        assert all(isinstance(outcomes[index], ProtocolError) for index in (1, 2, 3))


def test_whoever_found_a_cheat_is_not_taken_for_crashed() -> None:
    def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
        return flip(sent, 0) if (s, a, b) == (3, 0, 1) else sent

    outcomes, _ = play_altered(alter)
    assert all(isinstance(outcomes[index], GaveUpError) for index in (0, 2, 3))
    with pytest.raises(ProtocolError, match="member 0 sent what member"):
        run(MAKE, carrier=Tap(alter))


def test_whether_members_abort_does_not_depend_on_what_they_hide() -> None:
    # Member 0 spoils one message; had the receiver gone on with it, what the others then find wrong
    # would depend on a component that member 0 lacks (component 0 of every value).
    payload = payload_of(VALUES, PLAN)
    shares = share_out(payload)
    for step, receiver in [(s, r) for s in range(1, LAST - 1) for r in (1, 2, 3)]:

        def alter(s: int, a: int, b: int, sent: bytes) -> bytes:
            hit = (s, a, b) == (step, 0, receiver)  # noqa: B023
            return bytes(len(sent)) if hit else sent

        endings = set()
        for seed in range(4):
            hidden = np.random.default_rng(seed).integers(0, 2**64, payload.shape, np.uint64)
            components = [{m: hidden if m == 0 else own[m] for m in own} for own in shares]
            tap = Tap(alter)
            outcomes = play(
                {
                    i: aggregate(i, component_keys()[i], SESSION, [PLAN], components[i])
                    for i in range(MEMBERS)
                },
                tap,
            )
            endings.add((*(str(outcomes[i]) for i in range(MEMBERS)), len(tap.messages)))
        assert len(endings) == 1
