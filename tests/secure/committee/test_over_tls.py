"""A whole round over real loopback TLS: dealt, admitted, trimmed on shares, opened; or ended."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedgrpo.ground.errors import MemberLostError
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.planes import slice_planes
from fedgrpo.secure.committee.keys.identity import ComponentKeys, toss_keys
from fedgrpo.secure.committee.links.driving import drive
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.tls import connect
from fedgrpo.secure.committee.round import Opened, aggregate
from fedgrpo.secure.committee.sharing.admission import Admitted, admit
from fedgrpo.secure.committee.sharing.dealing import deal
from fedgrpo.secure.committee.sharing.encoding import Encoding, decode_sum, encode
from fedgrpo.secure.committee.steps import Step
from tests.secure.committee.network import Network, network, together
from tests.secure.committee.parts import COMMITTEE, IDENTITIES, SESSION, play, secret

CLIENTS, DIMENSION, TRIM = 7, 130, 2
ENCODING = Encoding(1.0, DIMENSION)
SIGNING = {client: secret(f"client {client}") for client in range(CLIENTS)}
ROSTER = {
    client: Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    for client, key in SIGNING.items()
}
UPDATES = np.random.default_rng(3).normal(size=(CLIENTS, DIMENSION)) / 40
CODES = np.array([encode(update, ENCODING) for update in UPDATES])
PLANES = [slice_planes(codes, ENCODING.bits).ravel() for codes in CODES]
DEALT = [deal(PLANES[c], COMMITTEE, SESSION, c, SIGNING[c]) for c in range(CLIENTS)]


@dataclass(frozen=True)
class Outcome:
    """What one member knows when the round is over."""

    clients: tuple[int, ...]
    opened: Opened


def inbox(member: int) -> dict[int, bytes]:
    """Client 6 dealt nothing usable to members 1 and 2, so it is dropped."""
    spoilt = {6} if member in (1, 2) else set()
    return {c: b"" if c in spoilt else DEALT[c][member] for c in range(CLIENTS)}


def ends_of(parts: Mapping[int, object]) -> dict[int, object]:
    return dict(play(parts))  # type: ignore[arg-type]


KEYS: dict[int, ComponentKeys] = ends_of(  # type: ignore[assignment]
    {m: toss_keys(m, secret(f"toss {m}"), SESSION) for m in range(4)}
)
SHARES: dict[int, Admitted] = ends_of(  # type: ignore[assignment]
    {
        m: admit(m, IDENTITIES[m].agreement, SESSION, ROSTER, inbox(m), PLANES[0].size)
        for m in range(4)
    }
)


def plan_for(admitted: Admitted) -> Plan:
    return Plan(len(admitted.clients), DIMENSION, trim=TRIM - 1, circuit="log")


def session_of(admitted: Admitted) -> bytes:
    taken = hashlib.sha256(repr(admitted.clients).encode()).digest()
    return COMMITTEE.session("1", 2, taken)


def serve(net: Network, index: int, dies: bool = False) -> Outcome:
    """One member's whole part."""
    with net.link(net.party(index), 20.0) as links:
        keys = drive(toss_keys(index, secret(f"toss {index}"), SESSION), links)
        part = admit(
            index, IDENTITIES[index].agreement, SESSION, ROSTER, inbox(index), PLANES[0].size
        )
        admitted = drive(part, links)
    session = session_of(admitted)
    part = aggregate(index, keys, session, [plan_for(admitted)], admitted.components)
    with net.link(net.party(index, session=session), 20.0) as links:
        (opened,) = drive(killed_in_the_middle(part) if dies else part, links)
    return Outcome(admitted.clients, opened)


def killed_in_the_middle(
    part: Generator[Step, Mapping[int, bytes], tuple[Opened, ...]],
) -> Generator[Step, Mapping[int, bytes], tuple[Opened, ...]]:
    step = next(part)
    for _ in range(6):
        step = part.send((yield step))
    os.kill(os.getpid(), signal.SIGKILL)
    return ()


def expected() -> np.ndarray:
    taken = np.sort(CODES[:6].astype(np.int64), axis=0)
    total: np.ndarray = taken[TRIM - 1 : -(TRIM - 1)].sum(axis=0)
    return total


def check(outcome: object) -> None:
    assert isinstance(outcome, Outcome), outcome
    assert outcome.clients == tuple(range(6))
    np.testing.assert_array_equal(outcome.opened.totals, expected())
    total = decode_sum(outcome.opened.totals, outcome.opened.kept, outcome.opened.bits, ENCODING)
    clear = np.sort(UPDATES[:6] * 0.999, axis=0)[1:-1].mean(axis=0)
    assert np.abs(total / outcome.opened.kept - clear).max() < 1e-3


def test_four_members_open_the_exact_trimmed_mean_and_the_trace_holds_no_input() -> None:
    with network(wired=True) as net:
        outcomes = together(*(partial(serve, net, m) for m in range(4)))
        trace = b"".join(data for wire in net.wires for data in wire.seen)
    for outcome in outcomes:
        check(outcome)
    assert len(trace) > 100_000
    for codes, planes in zip(CODES, PLANES, strict=True):
        for plain in (codes.tobytes(), codes.astype("<u2").tobytes(), planes.tobytes()):
            assert not any(plain[at : at + 12] in trace for at in range(0, 240, 12))
    for message in DEALT:
        assert message[0][:32] not in trace


@pytest.mark.parametrize("lost", [0, 3])
def test_a_member_killed_in_the_middle_ends_the_round_for_all_and_opens_nothing(lost: int) -> None:
    with network() as net:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(net, lost, True))
        process.start()
        outcomes = together(*(partial(serve, net, m) for m in range(4) if m != lost))
        process.join(30)
    assert process.exitcode == -signal.SIGKILL
    for outcome in outcomes:
        assert isinstance(outcome, MemberLostError)
        assert outcome.member == lost


def test_a_member_with_another_plan_is_found_out_before_anything_is_opened() -> None:
    def part(index: int, party: Party, listener: socket.socket) -> tuple[Opened, ...]:
        plan = Plan(6, DIMENSION, trim=1 if index != 2 else 0)
        with connect(party, listener, 10.0) as links:
            member = aggregate(index, KEYS[index], SESSION, [plan], SHARES[index].components)
            return drive(member, links)

    with network() as net:
        ends = together(*(partial(part, m, net.party(m), net.listeners[m]) for m in range(4)))
    assert not [end for end in ends if not isinstance(end, Exception)]
    assert any("another round, other settings or another plan" in str(end) for end in ends)
