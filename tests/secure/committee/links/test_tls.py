"""Guarantees of direct links: only the pinned members, only this round, no silence unnoticed."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from fedgrpo.ground.errors import MemberLostError, ProtocolError
from fedgrpo.secure.committee.keys.identity import ComponentKeys, Identity, toss_keys
from fedgrpo.secure.committee.links.certificates import certificate, signing_key
from fedgrpo.secure.committee.links.driving import drive
from fedgrpo.secure.committee.links.frames import FrameReader, FrameWriter, Kind
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.meeting import MOST_UNPROVEN
from fedgrpo.secure.committee.links.tls import connect, listen
from fedgrpo.secure.committee.steps import Step
from tests.secure.committee.network import Network, network, together
from tests.secure.committee.parts import COMMITTEE, IDENTITIES, SESSION, play, secret

Bytes = Generator[Step, Mapping[int, bytes], bytes]
STRANGER = Identity(secret("stranger signs"), secret("stranger agrees"))


def gossip(index: int, rounds: int, size: int) -> Bytes:
    """Each sends to all a stretch of bytes that is a function of all that it has heard."""
    heard = b"%d" % index
    for _ in range(rounds):
        word = hashlib.shake_256(heard).digest(size)
        peers = frozenset(range(4)) - {index}
        received = yield Step(dict.fromkeys(peers, word), frozenset(peers))
        heard = hashlib.sha256(heard + b"".join(received[p] for p in sorted(peers))).digest()
    return heard


def chat(party: Party, net: Network, rounds: int = 5, size: int = 1000, wait: float = 10) -> bytes:
    with net.link(party, wait) as links:
        return drive(gossip(party.index, rounds, size), links)


def problem(end: object) -> str:
    assert isinstance(end, ProtocolError), end
    assert end.cure
    return str(end)


@pytest.mark.slow
def test_members_hear_over_tls_what_they_hear_in_one_process() -> None:
    with network() as net:
        ends = together(*(partial(chat, net.party(m), net, size=2_000_000) for m in range(4)))
    expected = play({m: gossip(m, 5, 2_000_000) for m in range(4)})
    assert ends == [expected[m] for m in range(4)]


def test_keys_are_tossed_over_real_connections() -> None:
    def toss(net: Network, m: int) -> ComponentKeys:
        with net.link(net.party(m)) as links:
            return drive(toss_keys(m, os.urandom(32), SESSION), links)

    with network() as net:
        ends = together(*(partial(toss, net, m) for m in range(4)))
    keys = [end.keys for end in ends if isinstance(end, ComponentKeys)]
    assert len({keys[m][3] for m in range(3)}) == 1
    assert len({keys[m][0] for m in (1, 2, 3)}) == 1


def test_a_network_trace_holds_no_plaintext() -> None:
    said = [b"a secret said by member %d, " % m * 4 for m in range(4)]

    def speak(index: int) -> Bytes:
        peers = frozenset(range(4)) - {index}
        received = yield Step(dict.fromkeys(peers, said[index]), peers)
        return b"".join(received[p] for p in sorted(peers))

    def run(net: Network, m: int) -> bytes:
        with net.link(net.party(m)) as links:
            return drive(speak(m), links)

    with network(wired=True) as net:
        ends = together(*(partial(run, net, m) for m in range(4)))
        trace = b"".join(data for wire in net.wires for data in wire.seen)
    assert ends[0] == said[1] + said[2] + said[3]
    assert len(trace) > 12 * len(said[0])
    for text in said:
        assert not any(text[at : at + 8] in trace for at in range(len(text) - 8))
    assert SESSION not in trace


def test_the_same_round_is_different_bytes_each_time() -> None:
    # Fresh keys for each handshake: a recorded round cannot be opened with long-term keys later.
    traces = []
    for _ in range(2):
        with network(wired=True) as net:
            together(*(partial(chat, net.party(m), net, 1, 64) for m in range(4)))
            traces.append({data for wire in net.wires for data in wire.seen if len(data) > 600})
    assert not traces[0] & traces[1]


def test_a_member_with_a_wrong_key_is_refused_and_named() -> None:
    with network() as net:
        pinned = net.committee.members
        wrong = replace(net.committee, members=(*pinned[:3], STRANGER.public))
        liar = Party(3, STRANGER, wrong, net.committee.session("1", 2))
        ends = together(
            *(partial(chat, net.party(m), net, wait=5) for m in range(3)),
            partial(chat, liar, net, wait=1),
        )
    for end in ends[:3]:
        assert "another key than the one pinned for committee member 3" in problem(end)


def test_somebody_who_poses_as_a_member_is_turned_away_and_the_round_goes_on() -> None:
    with network() as net:
        wrong = replace(net.committee, members=(*net.committee.members[:3], STRANGER.public))
        imposter = Party(3, STRANGER, wrong, net.committee.session("1", 2))
        with listen("127.0.0.1:0") as elsewhere:
            ends = together(
                *(partial(chat, net.party(m), net) for m in range(4)),
                lambda: connect(imposter, elsewhere, 2.0),
            )
    assert all(isinstance(end, bytes) for end in ends[:4])
    assert "refused this node: see that member 3's key is pinned" in problem(ends[4])


@pytest.mark.parametrize("greets", [False, True])
def test_a_member_that_dies_while_it_is_greeted_is_not_said_to_have_refused(greets: bool) -> None:
    """Before it answers, and in the middle of the handshake."""
    with network() as net, listen("127.0.0.1:0") as own:

        def die() -> bytes:
            listener = net.listeners[0]
            listener.settimeout(5)
            with suppress(TimeoutError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        if greets:
                            shown = certificate(IDENTITIES[0])
                            head = struct.pack(">8sBBH", b"fedgrpo2", 0, 1, len(shown))
                            connection.sendall(head + shown)
                        connection.recv(1)
            return b""

        party = net.party(1)
        _, end = together(die, lambda: connect(party, own, 1.0))
    assert "closed" in problem(end)
    assert "refused" not in problem(end)


def test_strangers_that_connect_and_say_nothing_or_nonsense_do_not_stop_the_round() -> None:
    with network() as net:
        idle = [socket.create_connection(net.listeners[0].getsockname()) for _ in range(5)]
        loud = socket.create_connection(net.listeners[0].getsockname())
        loud.sendall(b"GET / HTTP/1.1\r\n\r\n")
        ends = together(*(partial(chat, net.party(m), net) for m in range(4)))
        for connection in (*idle, loud):
            connection.close()
    assert all(isinstance(end, bytes) for end in ends)


def crowd(net: Network, count: int) -> list[socket.socket]:
    """Connections to every member that say nothing, but for some that say a little."""
    found = [
        socket.create_connection(listener.getsockname())
        for listener in net.listeners
        for _ in range(count)
    ]
    for connection in found[::3]:
        connection.sendall(b"fed")
    return found


@pytest.mark.parametrize("count", [40, MOST_UNPROVEN + 40])
def test_idle_strangers_before_the_members_cost_no_member_its_wait(count: int) -> None:
    """As many as there are places and more: the oldest make room."""
    with network() as net:
        idle = crowd(net, count)
        begun = time.monotonic()
        ends = together(*(partial(chat, net.party(m), net, wait=8) for m in range(4)))
        assert time.monotonic() - begun < 6
        for connection in idle:
            connection.close()
    assert all(isinstance(end, bytes) for end in ends)


def test_strangers_that_keep_coming_cost_no_member_its_wait() -> None:
    with network() as net:
        over = threading.Event()

        def keep_coming() -> bytes:
            kept: list[socket.socket] = []
            while not over.wait(0.005):
                kept.append(socket.create_connection(net.listeners[len(kept) % 4].getsockname()))
            for connection in kept:
                connection.close()
            return b"many" if len(kept) > 4 else b"few"

        def talk(m: int) -> bytes:
            try:
                return chat(net.party(m), net, wait=8)
            finally:
                if m == 0:
                    over.set()

        ends = together(*(partial(talk, m) for m in range(4)), keep_coming)
    assert all(isinstance(end, bytes) for end in ends)
    assert ends[4] == b"many"


def test_a_stranger_that_says_one_byte_after_the_other_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its time is for the whole of its proof, and not for each byte."""
    monkeypatch.setattr("fedgrpo.secure.committee.links.meeting.UNPROVEN_S", 0.3)
    with network() as net:
        slow = socket.create_connection(net.listeners[0].getsockname())
        begun = time.monotonic()

        def drip() -> float:
            with suppress(OSError):
                while time.monotonic() - begun < 2.5:
                    slow.sendall(b"f" if time.monotonic() - begun < 0.1 else b"e")
                    slow.settimeout(0.05)
                    with suppress(TimeoutError):
                        if not slow.recv(1):
                            break
            return time.monotonic() - begun

        lonely = partial(chat, net.party(0), net, wait=1.0)
        ended, lost = together(drip, lonely)  # type: ignore[arg-type]
        slow.close()
    assert isinstance(ended, float)
    assert 0.2 < ended < 1.5
    assert isinstance(lost, MemberLostError)


def test_what_strangers_do_is_told_in_few_words() -> None:
    with network() as net:

        def pose() -> bytes:
            for number in range(40):
                with socket.create_connection(net.listeners[0].getsockname()) as connection:
                    connection.sendall(struct.pack(">8sBBH", b"fedgrpo2", number + 4, 0, 1) + b"x")
            return b""

        _, end = together(pose, partial(chat, net.party(0), net, wait=1.0))
    assert problem(end).count("a connection said to be from") <= 8


def test_an_absent_member_is_named_with_who_was_turned_away() -> None:
    with network() as net:
        ends = together(*(partial(chat, net.party(m), net, wait=2.0) for m in range(3)))
    lost = [end for end in ends if isinstance(end, MemberLostError)]
    assert 3 in {end.member for end in lost}
    assert "did not connect in time" in problem(lost[0])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("settings", "differ in settings"),
        ("session", "differ in round"),
    ],
)
def test_members_that_differ_are_refused_and_both_named(change: str, match: str) -> None:
    with network() as net:
        other = net.party(2)
        if change == "settings":
            other = net.party(2, committee=replace(net.committee, settings=bytes(32)))
        else:
            other = net.party(2, session=net.committee.session("1", 1))
        ends = together(
            *(partial(chat, net.party(m), net, wait=5) for m in (0, 1, 3)),
            partial(chat, other, net, wait=5),
        )
    texts = [problem(end) for end in ends]
    assert all(match in text and " 2" in text for text in texts)


def test_a_node_whose_keys_are_not_its_member_s_does_not_start() -> None:
    with pytest.raises(ProtocolError, match="not those of committee member 1"):
        Party(1, IDENTITIES[0], COMMITTEE, SESSION)


def die_in_mid_round(party: Party, listener: socket.socket) -> None:
    def member() -> Bytes:
        part = gossip(party.index, 50, 100)
        step = next(part)
        for _ in range(3):
            step = part.send((yield step))
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with connect(party, listener, 20.0) as links:
        drive(member(), links)


def test_a_killed_member_is_noticed_at_once_by_all_others() -> None:
    with network() as net:
        process = multiprocessing.get_context("fork").Process(
            target=die_in_mid_round, args=(net.party(3), net.listeners[3])
        )
        process.start()
        started = time.monotonic()
        ends = together(*(partial(chat, net.party(m), net, 50, 100, 60.0) for m in range(3)))
        process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert time.monotonic() - started < 20
    for end in ends:
        assert isinstance(end, MemberLostError)
        assert end.member == 3
        assert "member 3" in problem(end)


def test_a_connection_cut_in_mid_message_names_who_was_cut_off() -> None:
    with network(wired=True) as net:
        net.wires[1].cut_after = 40_000
        ends = together(*(partial(chat, net.party(m), net, 3, 30_000, 5) for m in range(4)))
    assert "committee member" in problem(ends[1])
    assert isinstance(ends[1], MemberLostError)


@pytest.mark.slow
def test_a_silent_member_is_named_after_the_timeout() -> None:
    over = threading.Barrier(4)

    def mute(index: int) -> Bytes:
        yield Step({}, frozenset(range(4)) - {index})
        over.wait(20)
        return b""

    def run(net: Network, m: int, silent: bool) -> bytes:
        links = net.link(net.party(m), 2.0)
        try:
            return drive(mute(m) if silent else gossip(m, 2, 10), links)
        finally:
            if not silent:
                over.wait(20)
            links.close()

    with network() as net:
        ends = together(*(partial(run, net, m, m == 2) for m in range(4)))
    for m in (0, 1, 3):
        assert isinstance(ends[m], MemberLostError)
        assert "nothing came from committee member 2 for 2 s" in problem(ends[m])


def test_a_member_that_gives_up_ends_the_round_for_all_without_counting_as_crashed() -> None:
    def give_up(index: int) -> Bytes:
        yield from gossip(index, 2, 10)
        raise ProtocolError("the transcript does not fit", cure="none")

    def run(net: Network, m: int) -> bytes:
        with net.link(net.party(m)) as links:
            part = give_up(m) if m == 1 else gossip(m, 9, 10)
            return drive(part, links)

    with network() as net:
        ends = together(*(partial(run, net, m) for m in range(4)))
    for m in (0, 2, 3):
        assert not isinstance(ends[m], MemberLostError)
        assert "gave the round up" in problem(ends[m])


def test_a_member_may_finish_first_without_being_missed() -> None:
    def leave_early(index: int) -> Bytes:
        peers = frozenset(range(4)) - {index}
        yield Step(dict.fromkeys(peers, b"bye"), peers)
        if index == 0:
            return b"early"
        others = peers - {0}
        for _ in range(20):
            yield Step(dict.fromkeys(others, b"more"), others)
        return b"late"

    def run(net: Network, m: int) -> bytes:
        with net.link(net.party(m)) as links:
            return drive(leave_early(m), links)

    with network() as net:
        assert together(*(partial(run, net, m) for m in range(4))) == [b"early"] + [b"late"] * 3


class Pipe:
    """A stream to memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.writer = SimpleNamespace(write=self.data.extend)

    async def write(self, data: bytes) -> None:
        self.data.extend(data)


def written(session: bytes, *payloads: bytes) -> list[bytes]:
    """The frames that carry these messages."""
    frames, pipe = [], Pipe()
    writer = FrameWriter(pipe, session)  # type: ignore[arg-type]
    for payload in payloads:
        pipe.data.clear()
        asyncio.run(writer.write(Kind.MESSAGE, payload))
        frames.append(bytes(pipe.data))
    return frames


async def read(frames: bytes) -> None:
    """Read what member 2 sent, to its end."""
    stream = SimpleNamespace(reader=asyncio.StreamReader())
    stream.reader.feed_data(frames)
    stream.reader.feed_eof()
    reader = FrameReader(stream, SESSION, 2)  # type: ignore[arg-type]
    while True:
        await reader.next()


def test_an_old_round_s_message_replayed_is_refused() -> None:
    with pytest.raises(ProtocolError, match="member 2 sent a message of another round"):
        asyncio.run(read(*written(COMMITTEE.session("1", 1), b"old")))


def test_a_message_of_this_round_replayed_or_left_out_is_refused() -> None:
    frames = written(SESSION, b"first", b"second")
    for kept, match in (((0, 0), "message 0 where 1 was due"), ((1,), "message 1 where 0 was due")):
        with pytest.raises(ProtocolError, match=match):
            asyncio.run(read(b"".join(frames[i] for i in kept)))


@pytest.mark.parametrize("left", [0, 5, 44, 45, 47])
def test_a_message_cut_short_is_refused_with_its_length(left: int) -> None:
    (frame,) = written(SESSION, b"word")
    assert len(frame) == 49
    with pytest.raises(MemberLostError, match=r"member 2 (cut .* short|closed)") as error:
        asyncio.run(read(frame[:left]))
    assert error.value.member == 2


def test_a_frame_that_announces_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="announced a message of 4294967295 bytes"):
        asyncio.run(read(b"\xff" * 4 + bytes(9) + SESSION))


def test_certificates_are_a_function_of_the_key_and_carry_it() -> None:
    der = certificate(IDENTITIES[0])
    assert der == certificate(IDENTITIES[0]) != certificate(IDENTITIES[1])
    assert signing_key(der) == IDENTITIES[0].public.signing
    assert signing_key(b"nonsense") == b""
