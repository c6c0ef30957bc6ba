"""Guarantees of admission: alike at all honest members, whatever one member and clients do."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee.keys.identity import keepers
from fedgrpo.secure.committee.sharing.admission import Admitted, admit
from fedgrpo.secure.committee.sharing.dealing import deal, open_share
from tests.secure.committee.parts import COMMITTEE, IDENTITIES, SESSION, Tamper, play, secret

WORDS = 3
KEYS = {client: secret(f"client {client}") for client in (2, 5, 11)}
ROSTER = {
    client: Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    for client, key in KEYS.items()
}
PAYLOADS = {client: np.full(WORDS, client, np.uint64) for client in KEYS}
DEALT = {
    client: deal(PAYLOADS[client], COMMITTEE, SESSION, client, key) for client, key in KEYS.items()
}
AGAIN = {
    client: deal(PAYLOADS[client] + np.uint64(1), COMMITTEE, SESSION, client, key)
    for client, key in KEYS.items()
}
Inbox = dict[int, dict[int, bytes]]
"""``{member: {client: message}}``."""


def inboxes() -> Inbox:
    return {m: {client: DEALT[client][m] for client in KEYS} for m in range(4)}


def run(inbox: Inbox, tamper: Tamper | None = None) -> dict[int, Admitted | Exception]:
    members = {
        m: admit(m, IDENTITIES[m].agreement, SESSION, ROSTER, inbox[m], WORDS) for m in range(4)
    }
    return play(members, tamper) if tamper else play(members)


def agreed(ends: dict[int, Admitted | Exception], honest: list[int]) -> Admitted:
    """Check that the honest members hold the same clients and components; merge the latter."""
    joint: dict[int, np.ndarray] = {}
    results = []
    for m in honest:
        end = ends[m]
        assert isinstance(end, Admitted), end
        assert set(end.components) == set(keepers(m))
        results.append((end.clients, end.dropped, end.digest))
        for component, rows in end.components.items():
            assert rows.shape == (len(end.clients), WORDS)
            np.testing.assert_array_equal(joint.setdefault(component, rows), rows)
    assert len(set(results)) == 1
    clients, dropped, digest = results[0]
    return Admitted(clients, dropped, digest, joint)


def payloads(admitted: Admitted) -> dict[int, list[int]]:
    total = reduce(np.bitwise_xor, admitted.components.values())
    return {c: row.tolist() for c, row in zip(admitted.clients, total, strict=True)}


def test_all_clients_that_deal_properly_are_in() -> None:
    admitted = agreed(run(inboxes()), [0, 1, 2, 3])
    assert admitted.dropped == ()
    assert payloads(admitted) == {c: PAYLOADS[c].tolist() for c in KEYS}


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("bad", [None, b"", b"x" * 444, "other"])
def test_a_client_bad_to_one_member_is_repaired_from_the_others(
    victim: int, bad: bytes | str | None
) -> None:
    inbox = inboxes()
    inbox[victim][5] = AGAIN[5][victim] if isinstance(bad, str) else bad or b""
    if bad is None:
        del inbox[victim][5]
    assert payloads(agreed(run(inbox), [0, 1, 2, 3]))[5] == PAYLOADS[5].tolist()


def test_a_client_bad_to_two_members_drops_itself_and_nobody_else() -> None:
    inbox = inboxes()
    inbox[1][5], inbox[3][5] = b"", AGAIN[5][3]
    admitted = agreed(run(inbox), [0, 1, 2, 3])
    assert (admitted.clients, admitted.dropped) == ((2, 11), (5,))


def test_a_round_of_bad_clients_only_is_empty_and_no_error() -> None:
    admitted = agreed(run({m: {} for m in range(4)}), [0, 1, 2, 3])
    assert (admitted.clients, admitted.dropped) == ((), (2, 5, 11))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 3),
    st.lists(st.sampled_from(["good", "none", "again"]), min_size=4, max_size=4),
    st.dictionaries(
        st.tuples(st.integers(0, 3), st.integers(0, 2)),
        st.one_of(st.binary(max_size=40), st.integers(0, 2**32 - 1)),
    ),
)
def test_one_lying_member_and_a_lying_client_never_part_the_honest_members(
    liar: int, dealt: list[str], lies: dict[tuple[int, int], bytes | int]
) -> None:
    inbox = inboxes()
    for m, kind in enumerate(dealt):
        inbox[m][5] = {"good": DEALT[5][m], "none": b"", "again": AGAIN[5][m]}[kind]

    def lie(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        lie = lies.get((receiver, number))
        if sender != liar or lie is None:
            return message
        if isinstance(lie, bytes):
            return lie
        # Same length, some entries replaced: by nothing, or by what the other dealing hashes to.
        entries = [message[at : at + 32] for at in range(0, len(message), 32)]
        options = [bytes(32), *entries]
        return b"".join(
            options[(lie >> 2 * i) % len(options)][: len(e)].ljust(len(e)) if lie >> i & 1 else e
            for i, e in enumerate(entries)
        )

    honest = [m for m in range(4) if m != liar]
    admitted = agreed(run(inbox, lie), honest)
    # The honest clients are in, with what they dealt; the lying one is in or not, for all alike.
    assert {2, 11} <= set(admitted.clients)
    values = payloads(admitted)
    assert values[2] == PAYLOADS[2].tolist()
    assert values[11] == PAYLOADS[11].tolist()
    if 5 in values:
        assert values[5] in (PAYLOADS[5].tolist(), (PAYLOADS[5] + np.uint64(1)).tolist())


@pytest.mark.parametrize("liar", range(4))
def test_a_member_that_denies_all_gets_no_component_that_it_should_not_hold(liar: int) -> None:
    seen: list[bytes] = []

    def deny(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        if receiver == liar:
            seen.append(message)
        return bytes(len(message)) if sender == liar and number == 0 else message

    admitted = agreed(run(inboxes(), deny), [m for m in range(4) if m != liar])
    assert admitted.clients == (2, 5, 11)
    heard = b"".join(seen)
    for client in KEYS:
        other = (liar + 1) % 4
        key = IDENTITIES[other].agreement
        share = open_share(other, key, SESSION, client, ROSTER[client], DEALT[client][other], WORDS)
        assert share
        assert share.component(liar).tobytes() not in heard
        entitled = next(m for m in keepers(liar) if m != other)
        assert share.component(entitled).tobytes() in heard


def test_more_liars_than_one_are_noticed_where_a_share_stays_missing() -> None:
    inbox = inboxes()
    inbox[0][5] = b""

    def lie(sender: int, receiver: int, number: int, message: bytes) -> bytes:
        return bytes(len(message)) if sender in (1, 2, 3) and number == 2 else message

    with pytest.raises(ProtocolError, match="member 0 was sent no valid share of client 5"):
        raise run(inbox, lie)[0]  # type: ignore[misc]
