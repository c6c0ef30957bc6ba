"""From a fresh TCP connection to a TLS stream whose ends know, and agree with, each other."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from fedgrpo.ground.errors import MemberLostError, ProtocolError
from fedgrpo.secure.committee.keys.identity import Committee, Identity, keepers
from fedgrpo.secure.committee.links.certificates import certificate, signing_key, tls_context
from fedgrpo.secure.committee.links.frames import Stream

_GREETING = struct.Struct(">8sBBH")
_MAGIC = b"fedgrpo2"
_LARGEST_CERTIFICATE = 4096
_HELLO_BYTES = 32 + 32 + 32


@dataclass(frozen=True)
class Party:
    """One member, in one session of one committee, about to connect to the others."""

    index: int
    identity: Identity = field(repr=False)
    committee: Committee
    session: bytes
    """32 bytes: :meth:`Committee.session`."""

    def __post_init__(self) -> None:
        if self.identity.public != self.committee.members[self.index]:
            raise ProtocolError(
                f"this node's keys are not those of committee member {self.index}",
                cure="point to that member's identity file, or pin this one's public keys",
            )

    @property
    def peers(self) -> frozenset[int]:
        """The other three members."""
        return frozenset(keepers(self.index))


async def dial(party: Party, peer: int, stream: Stream) -> None:
    """Make a connection to ``peer`` a TLS stream.

    Adversary: whoever answers at the address. Only ``peer`` gets past the handshake, and only if it
    has the same settings and is in the same session.

    Raises
    ------
    ProtocolError
        If the key is not the pinned one, or settings, keys or session differ.
    MemberLostError
        If the connection breaks.
    """
    await _greet(party, peer, stream)
    index, _, shown = await _greeting(stream, peer, "it closed the connection unanswered")
    if not shown:
        raise _lost(peer, f"it refused this node: see that member {party.index}'s key is pinned")
    if index != peer or signing_key(shown) != party.committee.members[peer].signing:
        raise ProtocolError(
            f"what answers at {party.committee.addresses[peer]} has another key than the one "
            f"pinned for committee member {peer}",
            cure=f"check member {peer}'s address and key with its operator, not over this network",
        )
    with _lost_if_broken(peer, "the connection was closed in the handshake"):
        await stream.writer.start_tls(tls_context(party.identity, shown, server=False))
        await stream.write(_hello(party))
        hello = await stream.reader.readexactly(_HELLO_BYTES)
    _compare(party, peer, hello)


async def answer(party: Party, stream: Stream, proven: Callable[[], None] = lambda: None) -> int:
    """Make a connection from one of the peers a TLS stream, and return from which.

    Adversary: whoever dials. As for :func:`dial`.

    Parameters
    ----------
    party, stream:
        This member, and what was accepted.
    proven:
        Called when the other side has shown that it holds its key, before it is answered.

    Raises
    ------
    StrangerError
        If it is no member; it may be anybody, so that is no reason to give up waiting.
    ProtocolError
        If it is a member with other settings or keys, or in another session.
    MemberLostError
        If the connection breaks.
    """
    peer, target, shown = await _greeting(stream, party.index, "it did not greet")
    if peer not in party.peers or target != party.index:
        raise StrangerError(
            f"a connection said to be from committee member {peer} to member {target} came to "
            f"member {party.index}",
            cure="check the addresses in the committee's description",
        )
    if signing_key(shown) != party.committee.members[peer].signing:
        await _refuse(party, peer, stream)
        raise StrangerError(
            f"a connection said to be from committee member {peer} came with another key than the "
            "one pinned for it",
            cure=f"check member {peer}'s key with its operator; or somebody poses as it",
        )
    await _greet(party, peer, stream)
    with _lost_if_broken(peer, "the handshake failed"):
        await stream.writer.start_tls(tls_context(party.identity, shown, server=True))
        proven()
        hello = await stream.reader.readexactly(_HELLO_BYTES)
        await stream.write(_hello(party))
    _compare(party, peer, hello)
    return peer


class StrangerError(ProtocolError):
    """Somebody who has no business here connected."""


async def _greet(party: Party, peer: int, stream: Stream) -> None:
    own = certificate(party.identity)
    with _lost_if_broken(peer, "it closed the connection"):
        await stream.write(_GREETING.pack(_MAGIC, party.index, peer, len(own)) + own)


async def _refuse(party: Party, peer: int, stream: Stream) -> None:
    """Greet without a certificate: who was refused shall not take it for a crash. It is in the
    clear and proves nothing, so it counts as a lost connection, with another word.
    """
    with suppress(OSError):
        await stream.write(_GREETING.pack(_MAGIC, party.index, peer, 0))


async def _greeting(stream: Stream, peer: int, what: str) -> tuple[int, int, bytes]:
    """Read who the other side says it is, and its certificate, which is empty if it refuses."""
    with _lost_if_broken(peer, what):
        header = await stream.reader.readexactly(_GREETING.size)
        magic, index, target, length = _GREETING.unpack(header)
        if magic != _MAGIC or length > _LARGEST_CERTIFICATE:
            raise StrangerError(
                "the other side of a connection does not speak this protocol",
                cure="check the addresses and the versions of the committee's members",
            )
        return index, target, await stream.reader.readexactly(length)


def _hello(party: Party) -> bytes:
    committee = party.committee
    return committee.settings + committee.digest + party.session


def _compare(party: Party, peer: int, hello: bytes) -> None:
    own = _hello(party)
    for start, end, what, cure in (
        (0, 32, "settings", "give both the same settings file and version"),
        (32, 64, "keys of the committee", "give both the same description of the committee"),
        (64, 96, "round", "start the round again at all members"),
    ):
        if hello[start:end] != own[start:end]:
            raise ProtocolError(
                f"committee members {party.index} and {peer} differ in {what}: "
                f"{own[start:end].hex()[:16]} here, {hello[start:end].hex()[:16]} there",
                cure=cure,
            )


@contextmanager
def _lost_if_broken(peer: int, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError) as error:
        raise _lost(peer, f"{what} ({type(error).__name__})") from None


def _lost(peer: int, what: str) -> MemberLostError:
    return MemberLostError(
        peer,
        f"no connection with committee member {peer}: {what}",
        cure=f"see the log of member {peer}",
    )
