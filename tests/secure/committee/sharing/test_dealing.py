"""Guarantees of a client's dealing: it opens to the payload, hides it, and cannot be altered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedgrpo.secure.committee.keys.identity import keepers
from fedgrpo.secure.committee.sharing.dealing import (
    STATEMENT_BYTES,
    Share,
    deal,
    open_share,
    statement_digest,
)
from tests.secure.committee.parts import COMMITTEE, IDENTITIES, SESSION, secret

CLIENT = 7
SIGNING = secret("client")
VERIFYING = Ed25519PrivateKey.from_private_bytes(SIGNING).public_key().public_bytes_raw()
PAYLOAD = np.arange(5, dtype=np.uint64) * np.uint64(0x0123456789ABCDEF)
DEALT = deal(PAYLOAD, COMMITTEE, SESSION, CLIENT, SIGNING)


def opened(member: int, message: bytes, words: int = 5, client: int = CLIENT) -> Share | None:
    agreement = IDENTITIES[member].agreement
    return open_share(member, agreement, SESSION, client, VERIFYING, message, words)


def shares_of(messages: tuple[bytes, ...], words: int = 5) -> list[Share]:
    shares = [opened(member, message, words) for member, message in enumerate(messages)]
    assert all(shares)
    return [share for share in shares if share]


def fixed_randomness(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    monkeypatch.setattr(
        "fedgrpo.secure.committee.sharing.dealing._randomness", lambda *_: secret(seed)
    )


@pytest.mark.slow
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9))
def test_components_of_any_two_members_give_the_payload(words: list[int]) -> None:
    payload = np.array(words, dtype=np.uint64)
    shares = shares_of(deal(payload, COMMITTEE, SESSION, CLIENT, SIGNING), len(words))
    for one in range(4):
        assert set(shares[one].openings) == set(keepers(one))
        for other in range(4):
            both = {**shares[one].openings, **shares[other].openings}
            if one != other:
                total = reduce(np.bitwise_xor, (Share(b"", both).component(m) for m in range(4)))
                np.testing.assert_array_equal(total, payload)


def test_keepers_of_a_component_open_it_alike() -> None:
    shares = shares_of(DEALT)
    for m in range(4):
        assert len({shares[member].openings[m] for member in keepers(m)}) == 1


def test_lengths_depend_on_the_number_of_words_alone() -> None:
    for payload in (PAYLOAD, np.zeros(5, np.uint64), np.full(5, 2**64 - 1, np.uint64)):
        messages = deal(payload, COMMITTEE, SESSION, CLIENT, SIGNING)
        assert [len(message) for message in messages] == [8 * 5 + 472] * 3 + [444]


def test_what_a_member_holds_does_not_depend_on_the_payload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shares(payload: np.ndarray, seed: str) -> list[Share]:
        fixed_randomness(monkeypatch, seed)
        return shares_of(deal(payload, COMMITTEE, SESSION, CLIENT, SIGNING), len(payload))

    zeros, ones = np.zeros(4000, np.uint64), np.full(4000, 2**64 - 1, np.uint64)
    first, second = shares(zeros, "a"), shares(ones, "a")
    # Same randomness, other payload: only the full component differs, and the last lacks that.
    assert first[3].openings == second[3].openings
    for member in range(3):
        # The full component is under a stream that the member lacks: uniform for any payload.
        for share in (first[member], second[member]):
            counts = np.bincount(share.component(3).view(np.uint8), minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-3
        known = [m for m in keepers(member) if m != 3]
        assert all(first[member].openings[m] == second[member].openings[m] for m in known)
        total = reduce(np.bitwise_xor, (first[member].component(m) for m in keepers(member)))
        counts = np.bincount(total.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    "changed",
    [
        {"session": COMMITTEE.session("1", 3)},
        {"client": CLIENT + 1},
        {"signing": bytes(31) + b"1"},
        {"payload": PAYLOAD ^ np.uint64(1)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_no_message_holds_a_word_of_the_payload_and_no_two_dealings_are_alike(
    changed: dict[str, Any],
) -> None:
    asked = {"payload": PAYLOAD, "session": SESSION, "client": CLIENT, "signing": SIGNING}
    again = deal(committee=COMMITTEE, **asked | changed)
    for one, other in zip(DEALT, again, strict=True):
        assert not any(word.tobytes() in one for word in PAYLOAD[1:])
        # No common part: hashes are salted, so not even equality of payloads shows.
        parts = [one[at : at + 32] for at in range(0, len(one) - 31, 32)]
        assert not any(part in other for part in parts)


def test_dealing_again_in_the_same_session_makes_the_same_shares() -> None:
    again = deal(PAYLOAD, COMMITTEE, SESSION, CLIENT, SIGNING)
    assert [share.statement for share in shares_of(again, PAYLOAD.size)] == [
        share.statement for share in shares_of(DEALT, PAYLOAD.size)
    ]


@given(st.integers(0, 3), st.integers(0, 10**6), st.integers(0, 7))
def test_any_altered_bit_is_noticed(member: int, at: int, bit: int) -> None:
    message = bytearray(DEALT[member])
    message[at % len(message)] ^= 1 << bit
    # X25519 ignores the top bit of a key, which the signature does not.
    assert opened(member, bytes(message)) is None


@pytest.mark.parametrize("member", range(4))
def test_a_message_is_good_for_its_member_client_session_and_length_only(member: int) -> None:
    message = DEALT[member]
    agreement = IDENTITIES[member].agreement
    other_session = COMMITTEE.session("1", 3)
    other_settings = replace(COMMITTEE, settings=bytes(32)).session("1", 2)
    assert opened(member, message)
    assert opened((member + 1) % 4, message) is None
    assert opened(member, message, client=CLIENT + 1) is None
    assert opened(member, message[:-1]) is None
    assert opened(member, b"") is None
    assert member == 3 or opened(member, message, words=6) is None
    for session in (other_session, other_settings):
        assert open_share(member, agreement, session, CLIENT, VERIFYING, message, 5) is None
    stranger = IDENTITIES[0].public.signing
    assert open_share(member, agreement, SESSION, CLIENT, stranger, message, 5) is None
    assert open_share(member, agreement, SESSION, CLIENT, bytes(32), message, 5) is None


@pytest.mark.parametrize(
    ("member", "ruin"),
    [
        (0, lambda s: bytes(32) + s[32:]),  # an ephemeral key of low order
        (0, lambda s: s[:-32] + bytes(32)),  # hash of component 3
        (3, lambda s: s[:32] + s[64:96] + s[64:]),  # hash of component 0
    ],
)
def test_a_client_that_signs_what_does_not_fit_is_noticed(
    member: int, ruin: Callable[[bytes], bytes]
) -> None:
    statement = ruin(DEALT[member][:STATEMENT_BYTES])
    key = Ed25519PrivateKey.from_private_bytes(SIGNING)
    signature = key.sign(statement_digest(SESSION, CLIENT, statement))
    assert opened(member, statement + signature + DEALT[member][STATEMENT_BYTES + 64 :]) is None
