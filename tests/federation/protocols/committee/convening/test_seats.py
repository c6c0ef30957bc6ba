"""Seats and dealing keys are proven: nobody speaks for a member or a node but itself."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.protocols.committee import server as committee_server
from fedgrpo.federation.protocols.committee.convening.identity import KEY_FILE
from fedgrpo.federation.protocols.committee.convening.messages import Dealer, DealOrder, Work
from fedgrpo.federation.protocols.committee.convening.plan import write_keys
from fedgrpo.federation.protocols.committee.convening.roll import Roll
from fedgrpo.federation.protocols.committee.convening.seats import (
    MOST_ATTEMPTS,
    DealingKey,
    Place,
    Seat,
    check_seating,
    proven_clients,
    public_signing_key,
)
from fedgrpo.federation.simulation.local_grid import stage_of
from fedgrpo.federation.wire.codec import Header, decode, encode, put, take
from fedgrpo.federation.wire.messages import Tag
from fedgrpo.ground.errors import ProtocolError, SettingsError
from fedgrpo.secure.committee import Identity
from fedgrpo.settings import Settings
from fedgrpo.site import Refusal
from tests.federation.federation import Federation, make_settings, vector_of
from tests.federation.kills import KilledError
from tests.federation.protocols.committee.rounds import COMMITTEE, of_encoded
from tests.federation.sites import code_of

pytestmark = pytest.mark.slow

PLACE = Place("settings", "run", 3)
MEMBERS = [Identity(bytes([m]) * 32, bytes([64 + m]) * 32) for m in range(5)]
NAME = "a" * 64
NODES = 9
EVIL = 1001 + NODES - 1
"""The last node: a client like any other."""

SEATS = tuple(
    Seat(identity.public, 1001 + m, 2, (NAME,), NAME).signed(identity, PLACE)
    for m, identity in enumerate(MEMBERS[:4])
)


def dealing(number: int, node: int, place: Place = PLACE) -> DealingKey:
    return DealingKey.make(bytes([100 + number]) * 32, bytes([1 + number]) * 32, node, place)


OTHERS: list[Callable[[Seat], Seat]] = [
    lambda seat: replace(seat, attempt=3),
    lambda seat: replace(seat, ready=()),
    lambda seat: replace(seat, ready=(NAME, NAME)),
    lambda seat: replace(seat, seating=""),
    lambda seat: replace(seat, node=2000),
    lambda seat: replace(seat, keys=MEMBERS[4].public),
    lambda seat: replace(seat, keys=replace(seat.keys, agreement=bytes(32))),
    lambda seat: replace(seat, signature=b""),
    lambda seat: replace(seat, signature=SEATS[1].signature),
    # Its words may not be moved from one field into the next.
    lambda seat: replace(seat, ready=(), seating=NAME + NAME),
]


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_is_changed_in_a_seat_it_is_not_signed(other: Callable[[Seat], Seat]) -> None:
    SEATS[0].check(PLACE)
    with pytest.raises(ProtocolError, match="is not signed by that member for this round"):
        other(SEATS[0]).check(PLACE)


@pytest.mark.parametrize("change", [{"settings": "other"}, {"run": "other"}, {"round": 4}])
def test_a_seat_or_a_dealing_key_serves_in_one_round_of_one_run_only(change: Any) -> None:
    elsewhere = replace(PLACE, **change)
    with pytest.raises(ProtocolError, match="is not signed"):
        SEATS[0].check(elsewhere)
    assert dealing(1, 1001).holds(PLACE)
    assert not dealing(1, 1001).holds(elsewhere)


@pytest.mark.parametrize("attempt", [MOST_ATTEMPTS, 2**62, 2**63 - 1, -1])
def test_no_member_claims_an_attempt_after_which_there_is_none(attempt: int) -> None:
    seat = replace(SEATS[0], attempt=attempt).signed(MEMBERS[0], PLACE)
    with pytest.raises(ProtocolError, match=f"names attempt {attempt}"):
        seat.check(PLACE)


def test_a_seating_is_four_members_at_four_nodes() -> None:
    assert check_seating(SEATS, PLACE) == tuple(identity.public for identity in MEMBERS[:4])
    twice = replace(SEATS[3], node=1001).signed(MEMBERS[3], PLACE)
    for seats in (SEATS[:3], (*SEATS, SEATS[0]), (*SEATS[:3], twice)):
        with pytest.raises(ProtocolError, match="seats at"):
            check_seating(seats, PLACE)


def test_who_is_not_proven_or_has_changed_its_key_is_no_client() -> None:
    clients = {n: dealing(n, 1001 + n) for n in range(5)}
    assert proven_clients(clients, PLACE, {}) == clients
    pins = {1001: clients[0].identity.hex(), 1002: "other"}
    assert set(proven_clients(clients, PLACE, pins)) == {0, 2, 3, 4}
    unsigned = {2: replace(clients[2], key=bytes(32)), 3: replace(clients[3], node=5000)}
    assert set(proven_clients(clients | unsigned, PLACE, {})) == {0, 1, 4}
    same_node = clients | {4: dealing(4, 1001)}
    assert set(proven_clients(same_node, PLACE, {})) == {1, 2, 3}
    twins = clients | {4: dealing(0, 1005)}
    assert set(proven_clients(twins, PLACE, {})) == {1, 2, 3}
    # Somebody who repeats another one's words knocks out nobody but itself.
    for words in (replace(clients[0], node=1005), replace(dealing(4, 1005), key=clients[0].key)):
        assert set(proven_clients(clients | {4: words}, PLACE, {})) == {0, 1, 2, 3}


def test_nobody_claims_a_dealing_key_that_it_has_only_seen() -> None:
    seen, own = dealing(0, 1001), bytes([5]) * 32
    claimed = DealingKey(seen.key, public_signing_key(own), 1005)
    signature = Ed25519PrivateKey.from_private_bytes(own).sign(claimed._statement(PLACE))
    for theirs in (b"", signature, seen.signature[64:]):
        assert not replace(claimed, signature=signature + theirs).holds(PLACE)


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.sampled_from([NAME, "b" * 64]), max_size=3),
    st.sampled_from(["", NAME]),
    st.binary(max_size=80),
)
def test_a_seat_comes_out_of_a_message_as_it_went_in(
    node: int, attempt: int, ready: list[str], seating: str, signature: bytes
) -> None:
    seat = Seat(MEMBERS[0].public, node, attempt, tuple(ready), seating, signature)
    dealer = decode(Dealer, dealer_message(seat))
    assert dealer.seat == seat
    assert dealer.dealing == dealing(1, 1001)


def dealer_message(seat: Seat) -> Any:
    return encode(Header(1, 3), Dealer(dealing(1, 1001), seat), Tag("0" * 32, "0" * 64))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seat[].keys.signing", [b"short"]),
        ("seat[].seating", ["no name"]),
        ("seat[].ready[]", ["no name"]),
        ("seat[].ready#", [2]),
        ("seat[].attempt", []),
        ("seat#", 2),
        ("dealing.key", b"short"),
        ("dealing.identity", b"short"),
        ("dealing.node", [1001]),
    ],
)
def test_a_malformed_seat_or_key_is_refused(field: str, value: Any) -> None:
    content = dealer_message(SEATS[0])
    content["Dealer"][field] = value
    with pytest.raises(ProtocolError):
        decode(Dealer, content)


# Whole rounds -----------------------------------------------------------------------------------


class Listed(Federation):
    """Nodes of which the first few are members with key files, listed by the settings."""

    def __init__(self, folder: Path, listed: int = 4, rounds: int = 1, **options: Any) -> None:
        self.folder, names = folder, []
        for m in range(listed):
            (folder / f"{m}.key").touch(mode=0o600)
            (folder / f"{m}.key").write_bytes(MEMBERS[m].to_bytes())
            names.append(write_keys(MEMBERS[m].public).hex())
        self.listed = listed
        changed = options.pop("changed", {})
        settings = make_settings(
            **COMMITTEE | {"aggregation__committee": ",".join(names), "rounds": rounds} | changed
        )
        super().__init__(settings, NODES, **options)

    def __post_init__(self) -> None:
        super().__post_init__()
        for place, context in enumerate(self.grid.contexts.values()):
            if place < self.listed:
                context.node_config[KEY_FILE] = str(self.folder / f"{place}.key")


class Watched(FedGRPO):
    """Keeps what became of each round, and how many had been charged by then."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **options)
        self.outcomes: list[Any] = []

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        result = super().aggregate_train(server_round, replies)
        assert self._round is not None
        assert self.state is not None
        self.outcomes.append((self._round.outcome, self.state.progress.charged))
        return result


def outcomes(federation: Listed) -> list[Any]:
    strategy = Watched(federation.settings)
    federation.run(strategy)
    return strategy.outcomes


def seated(*places: int) -> tuple[str, ...]:
    return tuple(MEMBERS[m].public.signing.hex() for m in places)


def claims(seat: Seat, *, silent: bool = False, from_round: int = 1) -> Any:
    """One client says that it has a member's seat, and may say nothing when it is asked to work."""

    def tamper(stage: str, node: int, reply: Message) -> Any:
        if node != EVIL or not reply.has_content():
            return reply
        if reply.content["fedgrpo"]["round"] < from_round:
            return reply
        if stage == "committee" and silent:
            return []
        if stage == "train":
            dealer, tag = decode(Dealer, reply.content), decode(Tag, reply.content)
            round_ = reply.content["fedgrpo"]["round"]
            # Participants are read in the order of names: this one comes last.
            last = Tag("f" * 32, tag.commitment)
            reply.content = encode(Header(1, round_), replace(dealer, seat=seat), last)
        return reply

    return tamper


CLAIMED = Seat(MEMBERS[0].public, EVIL, 0, (NAME,))


@pytest.mark.parametrize("attempt", [0, 2**62, 2**63 - 1])
@pytest.mark.parametrize("node", [EVIL, 1001])
def test_a_client_that_repeats_a_members_keys_takes_no_seat_and_sets_no_attempt(
    tmp_path: Path, attempt: int, node: int
) -> None:
    claimed = replace(CLAIMED, attempt=attempt, node=node, signature=bytes(64))
    federation = Listed(tmp_path, tamper=claims(claimed))
    ((outcome, charged),) = outcomes(federation)
    assert (outcome.reason, outcome.members, charged) == ("", seated(0, 1, 2, 3), 1)
    assert (outcome.finished, outcome.dropped) == (8, 1), "it has cost itself its place"
    asked = {node for stage, node in federation.grid.sent if stage == "committee"}
    assert asked == {1001, 1002, 1003, 1004}


def test_a_seat_that_a_member_signed_elsewhere_is_no_seat_here(tmp_path: Path) -> None:
    """Taken from another round, or from the member's own node."""
    seen: list[Seat] = []

    def tamper(stage: str, node: int, reply: Message) -> Any:
        if stage == "train" and node == 1001 and (seat := decode(Dealer, reply.content).seat):
            seen.append(seat)
        if stage == "train" and node == EVIL and seen:
            return claims(seen[0])(stage, node, reply)
        return reply

    federation = Listed(tmp_path, rounds=2, tamper=tamper)
    for outcome, _ in outcomes(federation):
        assert (outcome.reason, outcome.members) == ("", seated(0, 1, 2, 3))
        assert (outcome.finished, outcome.dropped) == (8, 1)


@pytest.mark.parametrize("from_round", [1, 2])
def test_a_client_that_poses_as_a_member_cannot_silence_it(tmp_path: Path, from_round: int) -> None:
    tamper = claims(replace(CLAIMED, signature=bytes(64)), silent=True, from_round=from_round)
    federation = Listed(tmp_path, rounds=2, tamper=tamper)
    found = outcomes(federation)
    assert [(o.reason, o.members, charged) for o, charged in found] == [
        ("", seated(0, 1, 2, 3), 1),
        ("", seated(0, 1, 2, 3), 2),
    ]


def test_a_scenario_that_lets_three_go_on_is_refused_as_an_unknown_setting() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting aggregation\.allow_three"):
        make_settings(**COMMITTEE, aggregation__allow_three=True)


def test_less_than_four_and_one_member_twice_are_no_committee(tmp_path: Path) -> None:
    names = [write_keys(identity.public).hex() for identity in MEMBERS]
    twice = [*names[:3], names[0]]
    other_half = [*names[:3], names[0][:64] + names[4][64:]]
    for listed in (names[:3], twice, other_half, [*names[:4], "no name"]):
        with pytest.raises(SettingsError, match="does not name four different members or more"):
            make_settings(**COMMITTEE, aggregation__committee=",".join(listed))
    settings = make_settings(**COMMITTEE, aggregation__committee=",".join(names))
    assert len(settings.aggregation.committee) == 5


# What a server passes on -------------------------------------------------------------------------


ASKED: dict[str, Any] = {"deal": DealOrder, "committee": Work}


def lying(federation: Listed, stage: str, lie: Callable[[Any, int], Any]) -> list[Message]:
    """Have the server alter what it passes on at one stage; returns what nodes answer."""
    answers: list[Message] = []
    run_app = federation.grid._run_app

    def altered(message: Message, node: int) -> Message:
        if stage_of(message) == stage:
            message = copy.deepcopy(message)  # The same one goes to several nodes.
            put(message.content, lie(take(ASKED[stage], message.content), node))
            answers.append(run_app(message, node))
            return answers[-1]
        return run_app(message, node)

    federation.grid._run_app = altered  # type: ignore[method-assign]
    return answers


def own_committee(order: Any, node: int) -> Any:
    """Seats of members that the server made up, properly signed; the settings list others."""
    place = Place(SETTINGS_OF["now"].fingerprint(), SETTINGS_OF["run"], 1)
    made = [Identity(bytes([100 + m]) * 32, bytes([200 + m]) * 32) for m in range(4)]
    seats = [Seat(i.public, 5000 + m).signed(i, place) for m, i in enumerate(made)]
    return replace(order, seats=tuple(seats))


SETTINGS_OF: dict[str, Any] = {}


def swapped(order: Any, node: int) -> Any:
    return replace(order, seats=order.seats[::-1])


def unsigned(order: Any, node: int) -> Any:
    return each_seat(order, signature=bytes(64))


def moved(order: Any, node: int) -> Any:
    first, *others = order.seats
    return replace(order, seats=(replace(first, node=5000), *others))


def another_attempt(order: Any, node: int) -> Any:
    return each_seat(order, attempt=7)


def each_seat(order: Any, **changes: Any) -> Any:
    return replace(order, seats=tuple(replace(seat, **changes) for seat in order.seats))


@pytest.mark.parametrize("lie", [own_committee, swapped, unsigned, moved, another_attempt])
def test_nobody_deals_to_seats_that_are_not_proven(
    tmp_path: Path, lie: Callable[[Any, int], Any], caplog: pytest.LogCaptureFixture
) -> None:
    federation = Listed(tmp_path)
    strategy = Watched(federation.settings)
    SETTINGS_OF.update(now=federation.settings, run=strategy._journal.run)
    answers = lying(federation, "deal", lie)
    federation.run(strategy)
    assert len(answers) == NODES
    assert {code_of(answer) for answer in answers} == {Refusal.MESSAGE}
    assert strategy.outcomes[0][1] == 0
    wanted = "seats another committee" if lie in (own_committee, swapped) else "is not signed"
    assert caplog.text.count(wanted) >= NODES


@pytest.mark.parametrize("lie", [own_committee, swapped, unsigned, moved, another_attempt])
def test_no_member_tosses_or_computes_with_seats_that_are_not_proven(
    tmp_path: Path, lie: Callable[[Any, int], Any]
) -> None:
    federation = Listed(tmp_path)
    strategy = Watched(federation.settings)
    SETTINGS_OF.update(now=federation.settings, run=strategy._journal.run)

    def begin(work: Work, node: int) -> Any:
        return lie(work, node) if work.task in ("toss", "aggregate") else work

    answers = lying(federation, "committee", begin)
    federation.run(strategy)
    assert len(answers) == 4
    assert {code_of(answer) for answer in answers} == {Refusal.MESSAGE}
    assert not vector_of(strategy).any()
    assert strategy.outcomes[0][1] == 0


def test_members_leave_out_a_client_whose_key_its_node_did_not_sign(tmp_path: Path) -> None:
    """A server that deals in a node's name has no key of that node."""
    federation = Listed(tmp_path)
    forged: set[int] = set()

    def lie(work: Work, node: int) -> Work:
        if work.task != "aggregate":
            return work
        ((number, key),) = [(n, key) for n, key in work.clients.items() if key.node == EVIL]
        forged.add(number)
        return replace(work, clients={**work.clients, number: replace(key, signature=bytes(128))})

    lying(federation, "committee", lie)
    strategy = Watched(federation.settings)
    federation.run(strategy)
    ((outcome, _),) = strategy.outcomes
    assert len(forged) == 1
    assert outcome.finished == 8
    assert np.array_equal(vector_of(strategy), of_encoded(federation, range(8)))


def test_members_know_a_node_by_its_first_key_also_where_the_server_has_forgotten_it(
    tmp_path: Path,
) -> None:
    federation = Listed(tmp_path, rounds=2)
    strategy = Watched(federation.settings)
    assert isinstance(strategy._protocol, committee_server.Server)
    committee = strategy._protocol.committee

    def drop(stage: str, node: int) -> bool:
        if (stage, node) == ("train", EVIL) and strategy.outcomes:
            committee.identities.clear()
            state = federation.grid.contexts[EVIL].state
            for name in [name for name in state if name.startswith("fedgrpo.store")]:
                del state[name]
        return False

    federation.grid._drop = drop
    federation.run(strategy)
    assert [outcome.finished for outcome, _ in strategy.outcomes] == [9, 8]


# More than four listed ---------------------------------------------------------------------------


def absent(place: int, rounds: set[int], stages: tuple[str, ...] = ("train",)) -> Any:
    """One node goes away in some rounds, counted by how often it was asked to train."""
    asked = itertools.count(1)
    now = [0]

    def drop(stage: str, node: int) -> bool:
        if (stage, node) == ("train", 1001 + place):
            now[0] = next(asked)
        return node == 1001 + place and stage in stages and now[0] in rounds

    return drop


def test_the_first_four_that_are_there_sit_and_each_four_toss_keys(tmp_path: Path) -> None:
    federation = Listed(tmp_path, listed=5, rounds=4, drop=absent(1, {2, 3}))
    found = outcomes(federation)
    assert [o.reason for o, _ in found] == [""] * 4
    first, second = seated(0, 1, 2, 3), seated(0, 2, 3, 4)
    assert [o.members for o, _ in found] == [first, second, second, first]
    opened = [o.finished for o, _ in found]
    assert opened == [9, 8, 8, 9]
    # In the first round of each four they toss, four messages and the first; else they compute.
    tossed = tasks(federation)
    assert tossed == [True, True, False, False]


def tasks(federation: Listed) -> list[bool]:
    """Whether members were asked for anything before the round was dealt, by round."""
    rounds = "".join(stage[0] for stage, _ in federation.grid.sent).split("t" * NODES)[1:]
    return ["c" in stages.partition("d")[0] for stages in rounds]


def test_a_member_lost_in_mid_round_is_replaced_in_the_next_and_no_sooner(tmp_path: Path) -> None:
    federation = Listed(tmp_path, listed=5, rounds=3, drop=absent(2, {2}, ("committee",)))
    found = outcomes(federation)
    reasons = [o.reason for o, _ in found]
    assert reasons[0] == reasons[2] == ""
    assert "committee ended the round" in reasons[1]
    assert [o.members for o, _ in found] == [seated(0, 1, 2, 3), (), seated(0, 1, 3, 4)]
    assert [charged for _, charged in found] == [1, 1, 2], "what was not opened costs nothing"


def test_another_member_sits_where_one_has_lost_its_keys(tmp_path: Path) -> None:
    """Those of its four do not toss again what has served, so it would end every round."""
    federation = Listed(tmp_path, listed=5, rounds=4)
    strategy = Watched(federation.settings)

    def forgetful(stage: str, node: int) -> bool:
        if (stage, node) == ("train", 1002) and len(strategy.outcomes) == 1:
            state = federation.grid.contexts[node].state
            for name in [n for n in state if n.startswith("fedgrpo.store.member-")]:
                del state[name]
        return False

    federation.grid._drop = forgetful
    federation.run(strategy)
    found = [(o.members, charged) for o, charged in strategy.outcomes]
    assert found[:2] == [(seated(0, 1, 2, 3), 1), ((), 1)]
    assert found[2:] == [(seated(0, 2, 3, 4), 2), (seated(0, 2, 3, 4), 3)]


def test_without_four_of_the_list_nothing_is_dealt(tmp_path: Path) -> None:
    gone = {1001, 1005}
    federation = Listed(
        tmp_path, listed=5, drop=lambda stage, node: stage == "train" and node in gone
    )
    ((outcome, charged),) = outcomes(federation)
    assert "committee members 0, 4 have not been seen: 3 are there" in outcome.reason
    assert charged == 0
    assert {stage for stage, _ in federation.grid.sent} == {"train"}


@pytest.mark.parametrize("at", [5, 60])
@pytest.mark.parametrize("honest", [True, False])
def test_a_round_begun_under_four_is_given_up_rather_than_gone_on_with_under_others(
    tmp_path: Path, honest: bool, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the toss, or in the computation; then a member is away.

    A server that seats others all the same is refused: members and clients remember.
    """
    strategy = killed_and_resumed(
        tmp_path, monkeypatch, at, before=(), after=absent(3, {1}), honest=honest
    )
    (given_up, charged), (after, spent) = strategy.outcomes
    assert given_up.reason
    assert (given_up.members, charged) == ((), 1), "it may have been opened"
    assert (after.reason, after.members, spent) == ("", seated(0, 1, 2, 3), 2)
    if honest:
        assert "begun by four members who are not all there" in given_up.reason


@pytest.mark.parametrize("at", [5, 60])
def test_a_round_begun_under_four_goes_on_under_them_also_if_an_earlier_one_is_back(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = killed_and_resumed(tmp_path, monkeypatch, at, before=(1001,))
    ((first, charged), (after, spent)) = strategy.outcomes
    assert (charged, spent) == (1, 2)
    # Where inputs were taken already, the one that is back has changed them.
    assert first.members == seated(1, 2, 3, 4) or "committee ended the round" in first.reason
    assert (after.reason, after.members) == ("", seated(0, 1, 2, 3))


def killed_and_resumed(
    folder: Path,
    patches: pytest.MonkeyPatch,
    at: int,
    *,
    before: tuple[int, ...],
    after: Any = lambda stage, node: False,
    honest: bool = True,
) -> Watched:
    """Kill a server of two rounds at one of its messages to members, and start another one."""
    patches.setattr(os, "fsync", lambda descriptor: None)
    changed = {"run__directory": str(folder / "run")}
    kept: dict[str, Any] = {"checkpoint": folder / "checkpoint", "secret": bytes(32)}
    passed = itertools.count()

    def killed(stage: str, node: int) -> bool:
        if stage == "committee" and next(passed) > at:
            raise KilledError
        return stage == "train" and node in before

    first = Listed(folder, 5, 2, drop=killed, changed=changed)
    with pytest.raises(KilledError):
        first.run(Watched(first.settings, **kept))
    if not honest:
        patches.setattr(Roll, "_first", lambda roll, order, seen: roll._in_order(seen, order[:4]))
    second = Listed(folder, 5, 2, drop=after, changed=changed, run_id=2)
    strategy = Watched(second.settings, **kept)
    second.run(strategy)
    return strategy


def test_nobody_deals_a_round_to_two_seatings_that_both_hold_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No member has to toss or to compute before clients are asked: they remember by themselves."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    changed = {"run__directory": str(tmp_path / "run")}
    kept: dict[str, Any] = {"checkpoint": tmp_path / "checkpoint", "secret": bytes(32)}
    away, dealt = absent(1, {2}), itertools.count(1)

    def killed(stage: str, node: int) -> bool:
        if stage == "deal" and next(dealt) == 3 * NODES - 1:  # Eight were asked in round 2.
            raise KilledError
        return bool(away(stage, node))

    first = Listed(tmp_path, 5, 3, drop=killed, changed=changed)
    with pytest.raises(KilledError):
        first.run(Watched(first.settings, **kept))
    monkeypatch.setattr(Roll, "_first", lambda roll, order, seen: roll._in_order(seen, order[:4]))
    answers: list[Message] = []

    def tamper(stage: str, node: int, reply: Message) -> Any:
        if stage == "deal":
            answers.append(reply)
        return reply

    second = Listed(tmp_path, 5, 3, drop=absent(1, {1}), tamper=tamper, changed=changed, run_id=2)
    strategy = Watched(second.settings, **kept)
    second.run(strategy)
    ((outcome, charged),) = strategy.outcomes
    assert outcome.reason
    assert charged == 3
    assert len(answers) == NODES - 1
    assert sum(code_of(answer) is None for answer in answers) <= 1, "one was not dealt with before"
