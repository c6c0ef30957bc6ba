"""Guarantees of relayed links: the relay reads nothing, forges nothing, and members survive it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.keys.identity import ComponentKeys, toss_keys
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.relay import ReplayableMember, open_sealed, seal
from fedgrpo.secure.committee.steps import Member
from tests.secure.committee.parts import COMMITTEE, IDENTITIES, SESSION, play, secret

Relayed = ReplayableMember[ComponentKeys]
Mail = dict[int, list[bytes]]
Post = dict[int, Mail]
"""``{receiver: {sender: messages in order}}``: what lies at the relay."""


def party(index: int, session: bytes = SESSION) -> Party:
    return Party(index, IDENTITIES[index], COMMITTEE, session)


def toss(index: int) -> Member[ComponentKeys]:
    return toss_keys(index, secret(str(index)), SESSION)


def relayed(index: int) -> Relayed:
    return ReplayableMember(party(index), partial(toss, index))


def put(post: Post, sender: int, sealed: dict[int, list[bytes]]) -> None:
    for receiver, messages in sealed.items():
        post.setdefault(receiver, {}).setdefault(sender, []).extend(messages)


def reborn(index: int, heard: list[Mail]) -> Relayed:
    """Another member of the same making, that hears the same."""
    member = relayed(index)
    member.begin()
    for mail in heard:
        member.deliver(mail)
    return member


def relay_all(order: list[int], rebuild: bool) -> list[ComponentKeys]:
    members = {m: relayed(m) for m in range(4)}
    heard: dict[int, list[Mail]] = {m: [] for m in range(4)}
    post: Post = {}
    for m, member in members.items():
        put(post, m, member.begin())
    turns = 0
    while not all(member.done for member in members.values()):
        m = order[turns % len(order)]
        turns += 1
        if mail := post.pop(m, None):
            if rebuild:
                members[m] = reborn(m, heard[m])
            put(post, m, members[m].deliver(mail))
            heard[m].append(mail)
        assert turns < 1000
    return [members[m].result for m in range(4)]


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [0, 0, 1, 0, 2, 1, 3]])
def test_members_rebuilt_for_every_message_reach_what_members_in_one_process_reach(
    order: list[int], rebuild: bool
) -> None:
    expected = play({m: toss(m) for m in range(4)})
    assert relay_all(order, rebuild) == [expected[m] for m in range(4)]


def test_a_rebuilt_member_goes_on_numbering_where_it_stopped() -> None:
    members = {m: relayed(m) for m in range(4)}
    post: Post = {}
    for m, member in members.items():
        put(post, m, member.begin())
    sent = reborn(0, []).deliver(post[0])
    assert open_sealed(party(1), 0, 1, sent[1][0])
    with pytest.raises(ProtocolError, match="message 0 from committee member 0"):
        open_sealed(party(1), 0, 0, sent[1][0])


def test_messages_may_come_one_by_one_or_early() -> None:
    members = {m: relayed(m) for m in range(4)}
    post: Post = {}
    for m, member in members.items():
        put(post, m, member.begin())
    for sender in (2, 3):
        assert members[0].deliver({sender: post[0][sender]}) == {}
        assert members[0].missing == [p for p in (1, 2, 3) if p > sender or p == 1]
    early: Post = {}
    put(early, 2, members[2].deliver(post[2]))
    # Member 2's second message is here before member 1's first one.
    assert members[0].deliver({2: early[0][2]}) == {}
    assert set(members[0].deliver({1: post[0][1]})) == {1, 2, 3}


@given(st.binary(max_size=200), st.integers(0, 10**6), st.integers(0, 7))
def test_any_altered_bit_of_a_sealed_message_is_refused(text: bytes, at: int, bit: int) -> None:
    sealed = bytearray(seal(party(1), 2, 5, text))
    assert len(sealed) == len(text) + 28
    assert open_sealed(party(2), 1, 5, bytes(sealed)) == text
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(ProtocolError, match="from committee member 1 to member 2"):
        open_sealed(party(2), 1, 5, bytes(sealed))


def test_a_sealed_message_is_good_for_one_place_only() -> None:
    sealed = seal(party(1), 2, 5, b"text")
    old = COMMITTEE.session("1", 1)
    settings = replace(COMMITTEE, settings=bytes(32))
    for receiver, sender, number in [
        (party(2), 1, 4),  # replayed or out of order
        (party(2), 3, 5),  # another sender's
        (party(3), 1, 5),  # another receiver's
        (party(1), 2, 5),  # returned to its sender
        (party(2, old), 1, 5),  # of an old round
        (Party(2, IDENTITIES[2], settings, settings.session("1", 2)), 1, 5),  # of other settings
    ]:
        with pytest.raises(ProtocolError, match="replayed"):
            open_sealed(receiver, sender, number, sealed)
    for cut in (b"", sealed[:10], sealed[:-1]):
        with pytest.raises(ProtocolError, match="cut short"):
            open_sealed(party(2), 1, 5, cut)


def test_the_relay_sees_no_plaintext_and_no_two_ciphertexts_alike() -> None:
    text = b"a word that the relay must not see" * 3
    first, second = seal(party(1), 2, 0, text), seal(party(1), 2, 0, text)
    for sealed in (first, second):
        assert not any(text[at : at + 4] in sealed for at in range(34))
    assert not any(first[at : at + 8] in second for at in range(len(first) - 8))


def test_a_refused_delivery_changes_nothing() -> None:
    member, other = relayed(0), relayed(1)
    member.begin()
    sent = other.begin()[0]
    for wrong in ({1: [*sent, *sent]}, {1: [b"x" * 60]}, {0: sent}, {9: sent}):
        with pytest.raises(ProtocolError):
            member.deliver(wrong)
        assert member.missing == [1, 2, 3]
    assert member.deliver({1: sent}) == {}
    assert member.missing == [2, 3]


def test_calls_out_of_order_are_refused() -> None:
    member = relayed(0)
    with pytest.raises(ProtocolError, match="waits for no message"):
        member.deliver({})
    member.begin()
    with pytest.raises(ProtocolError, match="begun already"):
        member.begin()
    with pytest.raises(ProtocolError, match="no result yet"):
        assert member.result
