"""Guarantees of identities and of the keys that three members toss together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedgrpo.ground.crypto import derive
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.keys.identity import (
    ComponentKeys,
    Identity,
    MemberKeys,
    keepers,
    toss_keys,
)
from fedgrpo.secure.committee.steps import Member
from tests.secure.committee.parts import COMMITTEE, IDENTITIES, SESSION, Tamper, play, secret


def toss(tamper: Tamper | None = None, salt: str = "") -> dict[int, ComponentKeys | Exception]:
    members = {m: toss_keys(m, secret(f"{salt}{m}"), SESSION) for m in range(4)}
    return play(members, tamper) if tamper else play(members)


def good(end: ComponentKeys | Exception) -> Mapping[int, bytes]:
    assert isinstance(end, ComponentKeys)
    return end.keys


def test_three_members_hold_each_key_and_the_fourth_does_not() -> None:
    ends = {m: good(end) for m, end in toss().items()}
    for component in range(4):
        keys = {ends[m][component] for m in keepers(component)}
        assert len(keys) == 1
        assert component not in ends[component]
    assert len({key for held in ends.values() for key in held.values()}) == 4


def test_a_member_is_sent_nothing_about_the_key_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seen_by_three(salt: bytes) -> list[bytes]:
        def other(key: bytes, info: bytes) -> bytes:
            return derive(key, info + salt * (b"|contribution|3|" in info))

        def keep(sender: int, receiver: int, number: int, message: bytes) -> bytes:
            if receiver == 3:
                seen.append(message)
            return message

        seen: list[bytes] = []
        monkeypatch.setattr("fedgrpo.secure.committee.keys.identity.derive", other)
        key = good(toss(keep)[0])[3]
        return [*seen, key]

    # Other contributions to component 3: another key, and nothing that member 3 could tell by.
    (*first, key), (*second, other_key) = seen_by_three(b""), seen_by_three(b"other")
    assert first == second
    assert key != other_key


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 40])
def test_any_altered_message_of_the_toss_is_noticed_and_names_the_sender(
    number: int, at: int
) -> None:
    def flip(sender: int, receiver: int, count: int, message: bytes) -> bytes:
        if (sender, receiver, count) != (1, 2, number):
            return message
        return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]

    with pytest.raises(ProtocolError, match="member 1"):
        raise toss(flip)[2]  # type: ignore[misc]


def test_two_stories_about_one_contribution_are_noticed() -> None:
    # Member 1 commits and reveals one contribution to member 2, another one to the rest.
    other = {m: toss_keys(m, secret(f"x{m}" if m == 1 else str(m)), SESSION) for m in range(4)}
    lies: dict[tuple[int, int, int], bytes] = {}

    def record(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        lies[sender, receiver, number] = message
        return message

    play(other, record)

    def equivocate(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        lie = (sender, receiver) == (1, 2) and number < 2
        return lies[sender, receiver, number] if lie else message

    ends = toss(equivocate)
    # Components 0 and 3 are common to members 1 and 2; each has a further honest keeper.
    for m in (0, 2, 3):
        assert isinstance(ends[m], ProtocolError)


class Kept:
    """What each member keeps of what the others committed to, from toss to toss."""

    def __init__(self) -> None:
        self.of: dict[int, Mapping[int, bytes]] = {}

    def member(self, index: int, salt: str = "", forgets: bool = False) -> Member[ComponentKeys]:
        def keep(committed: Mapping[int, bytes]) -> None:
            before = self.of.get(index, committed)
            if others := [peer for peer in committed if committed[peer] != before[peer]]:
                raise ProtocolError(f"{index} was told otherwise by {others}", cure="")
            if not forgets:
                self.of[index] = committed

        return toss_keys(index, secret(f"{salt}{index}"), SESSION, keep)


def test_a_repeated_toss_gives_the_same_keys() -> None:
    kept = Kept()
    first, second = (play({m: kept.member(m) for m in range(4)}) for _ in range(2))
    assert {m: good(first[m]) for m in first} == {m: good(second[m]) for m in second}


def test_who_has_seen_what_others_give_to_a_toss_cannot_repeat_it_with_something_else() -> None:
    kept = Kept()
    play({m: kept.member(m) for m in range(4)})
    ends = play({m: kept.member(m, "other" if m == 1 else "") for m in range(4)})
    for m in (0, 2, 3):
        assert f"{m} was told otherwise by [1]" in str(ends[m])


def test_nor_if_only_one_of_the_others_had_given_anything() -> None:
    """Member 0 alone had heard all commitments, and given its part to member 1."""
    kept = Kept()
    play({m: kept.member(m, forgets=m != 0) for m in range(4)})
    lies: dict[tuple[int, int, int], bytes] = {}

    def record(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        lies[sender, receiver, number] = message
        return message

    play(
        {m: toss_keys(m, secret(f"x{m}" if m == 1 else str(m)), SESSION) for m in range(4)}, record
    )

    # To member 0 the old story; to the others another contribution, in all three messages.
    def lie(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        return lies[1, receiver, number] if sender == 1 and receiver in (2, 3) else message

    ends = play({m: kept.member(m) for m in range(4)}, lie)
    for m in (0, 2, 3):
        assert isinstance(ends[m], ProtocolError)


def test_a_message_cut_short_is_refused_with_its_length() -> None:
    def cut(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        return message[:-1] if (sender, receiver, number) == (0, 3, 1) else message

    with pytest.raises(ProtocolError, match="member 0: it sent 63 bytes where 64 belong"):
        raise toss(cut)[3]  # type: ignore[misc]


def test_keys_of_two_sessions_have_nothing_in_common() -> None:
    keys = ComponentKeys(good(toss()[0]))
    first = keys.for_session(COMMITTEE.session("1", 1)).keys
    second = keys.for_session(COMMITTEE.session("1", 2)).keys
    assert not {*first.values(), *second.values()} & set(keys.keys.values())
    assert not set(first.values()) & set(second.values())
    bits = np.unpackbits(np.frombuffer(b"".join(first.values()), np.uint8))
    assert 0.3 < bits.mean() < 0.7


def test_sessions_depend_on_all_that_members_must_agree_on() -> None:
    sessions = {
        COMMITTEE.session("1", 2),
        COMMITTEE.session("1", 3),
        COMMITTEE.session("2", 2),
        COMMITTEE.session("12", 3),
        COMMITTEE.session("1", 2, bytes(32)),
        replace(COMMITTEE, settings=bytes(32)).session("1", 2),
        replace(COMMITTEE, members=COMMITTEE.members[::-1]).session("1", 2),
    }
    assert len(sessions) == 7
    moved = replace(COMMITTEE, addresses=("a:1", "b:2", "c:3", "d:4"))
    assert moved.session("1", 2) == COMMITTEE.session("1", 2)


def test_identity_survives_its_file_and_shows_no_secret() -> None:
    identity = Identity.new()
    assert Identity.from_bytes(identity.to_bytes()) == identity
    assert identity.signing.hex()[:8] not in repr(identity)
    assert Identity.new().public != identity.public
    with pytest.raises(ProtocolError, match="64 bytes, this one 63"):
        Identity.from_bytes(bytes(63))


def test_committees_that_are_none_are_refused() -> None:
    keys = tuple(i.public for i in IDENTITIES)
    none = ("",) * 4
    for members, addresses, settings, match in [
        (keys[:3], none, bytes(32), "3 members"),
        ((*keys[:3], keys[0]), none, bytes(32), "one key twice"),
        ((*keys[:3], MemberKeys(b"short", bytes(32))), none, bytes(32), "not 32 bytes"),
        (keys, none, b"", "not 32 bytes"),
        (keys, ("localhost", *none[:3]), bytes(32), "'localhost'"),
        (keys, ("localhost:0x1", *none[:3]), bytes(32), "no host:port"),
    ]:
        with pytest.raises(ProtocolError, match=match):
            type(COMMITTEE)(members, addresses, settings)
