"""Direct links between members: TLS 1.3 with pinned keys, one connection in each direction.

Every member dials every other one and writes on that connection only; what it accepts it reads
only, all of them at once, so that a peer which dies is noticed at once, whoever is being waited
for. All happens in one thread, in an event loop that runs while a step is exchanged.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from fedgrpo.ground.errors import MemberLostError, ProtocolError
from fedgrpo.secure.committee.links.driving import loss_behind
from fedgrpo.secure.committee.links.frames import FrameReader, FrameWriter, Kind, Stream
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.meeting import MOST_UNPROVEN, Meeting
from fedgrpo.secure.committee.steps import Step

_FAREWELL_S = 1.0
"""Most seconds in which last words reach peers."""
_MOST_UNREAD = 2**31
"""Bytes that a peer may send ahead of what is waited for."""
_CHEATED = 255
"""Reason of an abort that no lost member explains."""


@dataclass(frozen=True)
class _Event:
    """What came from a peer, or what ended it."""

    peer: int
    kind: Kind | None
    payload: bytes = b""
    error: ProtocolError | None = None


def listen(address: str) -> socket.socket:
    """Open the port that the other members dial, at ``host:port``; port 0 picks a free one. Raises
    ProtocolError if the port cannot be opened.
    """
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host, int(port)), backlog=2 * MOST_UNPROVEN)
    except OSError as error:
        raise ProtocolError(
            f"cannot listen on {address}: {error.strerror}",
            cure="give this member an address of this machine and a free port",
        ) from None


def connect(party: Party, listener: socket.socket, timeout_s: float = 60.0) -> TlsLinks:
    """Connect one member with all others that take part.

    Adversary: anybody on the network, and one malicious member. Strangers are turned away without
    ending the wait; a member that differs in settings, keys or round ends it at once.

    Parameters
    ----------
    party:
        The member and its session.
    listener:
        From :func:`listen`; stays open.
    timeout_s:
        Seconds to wait for the others, and later for each message.

    Raises
    ------
    MemberLostError
        If a member does not turn up in time; the error repeats who was turned away.
    ProtocolError
        If a member answers with another key, or differs in settings, keys or round.
    """
    runner = asyncio.Runner()
    try:
        streams = runner.run(Meeting(party).gather(listener, timeout_s))
    except BaseException:
        runner.close()
        raise
    return TlsLinks(party, runner, *streams, timeout_s)


class TlsLinks:
    """One member's links to the others in one session; a context manager, for one thread.

    Made by :func:`connect`. Leaving it tells the others whether this member is done or gave up.
    """

    def __init__(
        self,
        party: Party,
        runner: asyncio.Runner,
        outgoing: Mapping[int, Stream],
        incoming: Mapping[int, Stream],
        timeout_s: float,
    ) -> None:
        self._runner, self._timeout_s = runner, timeout_s
        self._streams = [*outgoing.values(), *incoming.values()]
        self._writers = {p: FrameWriter(s, party.session) for p, s in outgoing.items()}
        self._inbox: dict[int, deque[bytes]] = {peer: deque() for peer in incoming}
        self._unread = dict.fromkeys(incoming, 0)
        self._done: set[int] = set()
        self._lost: dict[int, MemberLostError] = {}
        self._aborts: dict[int, int] = {}
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._reading = [
            runner.get_loop().create_task(self._read_all(FrameReader(stream, party.session, peer)))
            for peer, stream in incoming.items()
        ]

    def exchange(self, step: Step) -> Mapping[int, bytes]:
        """Send what the step sends and wait for the messages that it expects.

        Raises
        ------
        MemberLostError
            If a member is gone, whether or not the step expects it, or silent for the timeout.
        ProtocolError
            If a member broke the protocol or gave up.
        """
        return self._runner.run(self._exchange(step))

    def close(self, reason: BaseException | None = None) -> None:
        """Tell the others that this member is done, or gave up and why; then hang up."""
        if loss := loss_behind(reason):
            last = (Kind.ABORT, bytes([loss.member]))
        else:
            last = (Kind.DONE, b"") if reason is None else (Kind.ABORT, bytes([_CHEATED]))
        self._runner.run(self._leave(*last))
        self._runner.close()

    async def _leave(self, kind: Kind, payload: bytes) -> None:
        async def say(writer: FrameWriter) -> None:
            await writer.write(kind, payload)
            writer.stream.writer.close()
            await writer.stream.writer.wait_closed()

        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                said = map(say, self._writers.values())
                await asyncio.gather(*said, return_exceptions=True)
        for stream in self._streams:
            stream.cut()

    def __enter__(self) -> TlsLinks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        reason: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(reason)

    async def _exchange(self, step: Step) -> Mapping[int, bytes]:
        for peer, payload in step.outgoing.items():
            await self._send(peer, payload)
        deadline = time.monotonic() + self._timeout_s
        while missing := sorted(p for p in step.expect if not self._inbox[p]):
            for peer in missing:
                self._check(peer)
            self._handle(await self._next_event(deadline, missing))
        return {peer: self._take(peer) for peer in sorted(step.expect)}

    async def _send(self, peer: int, payload: bytes) -> None:
        if peer in self._lost:
            raise self._lost[peer]
        if peer in self._done:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writers[peer].write(Kind.MESSAGE, payload)
        except OSError as error:
            # Its own last words, if any, are on the other connection.
            until = time.monotonic() + 1.0
            while peer not in self._lost and peer not in self._done:
                self._handle(await self._next_event(until, [peer], str(error)))

    async def _next_event(self, deadline: float, missing: list[int], why: str = "") -> _Event:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await self._events.get()
        except TimeoutError:
            silent = [peer for peer in missing if peer not in self._done]
            if not silent:
                raise self._gave_up(missing[0]) from None
            names = ", ".join(map(str, silent))
            raise MemberLostError(
                silent[0],
                f"nothing came from committee member {names} for {self._timeout_s:.0f} s {why}",
                cure="see its log and its network, then run the round again",
            ) from None

    def _handle(self, event: _Event) -> None:
        peer = event.peer
        if event.kind is Kind.MESSAGE:
            self._unread[peer] += len(event.payload)
            if self._unread[peer] > _MOST_UNREAD:
                raise _out_of_step(peer)
            self._inbox[peer].append(event.payload)
        elif event.kind is Kind.DONE:
            self._done.add(peer)
        elif event.kind is Kind.ABORT:
            self._done.add(peer)
            self._aborts[peer] = event.payload[0] if event.payload else _CHEATED
            self._check(peer)
        elif isinstance(event.error, MemberLostError):
            # The end of a stream whose sender said that it was done is no loss.
            if peer not in self._done:
                self._lost[peer] = event.error
                raise event.error
        elif event.error:
            raise event.error

    def _check(self, peer: int) -> None:
        """Refuse to wait for a member that sends no more.

        One that gave up because it lost another is believed only where this member's own connection
        says so too, be it by a timeout; else it could talk the rest into going on without a member
        whose checks it fears.
        """
        if peer in self._lost:
            raise self._lost[peer]
        lost = self._aborts.get(peer, _CHEATED)
        if lost in self._lost:
            raise self._lost[lost]
        if peer in self._aborts and (lost not in self._inbox or lost in self._done):
            raise self._gave_up(peer)
        if peer in self._done and peer not in self._aborts:
            raise _out_of_step(peer)

    def _gave_up(self, peer: int) -> ProtocolError:
        lost = self._aborts[peer]
        why = f": it lost member {lost}, which is still here" if lost in self._inbox else ""
        return ProtocolError(
            f"committee member {peer} gave the round up{why}",
            cure=f"see the log of member {peer}, then run the round again",
        )

    def _take(self, peer: int) -> bytes:
        message = self._inbox[peer].popleft()
        self._unread[peer] -= len(message)
        return message

    async def _read_all(self, reader: FrameReader) -> None:
        """Report every frame of one peer, and what ended them."""
        peer, kind = reader.peer, Kind.MESSAGE
        try:
            while kind is Kind.MESSAGE:
                kind, payload = await reader.next()
                self._events.put_nowait(_Event(peer, kind, payload))
        except ProtocolError as error:
            self._events.put_nowait(_Event(peer, None, error=error))
        except OSError as error:
            lost = MemberLostError(
                peer,
                f"the connection from committee member {peer} broke ({type(error).__name__})",
                cure=f"see the log of member {peer}, then run the round again",
            )
            self._events.put_nowait(_Event(peer, None, error=lost))


def _out_of_step(peer: int) -> ProtocolError:
    return ProtocolError(
        f"committee member {peer} is out of step: it ended early, or sends what nobody waits for",
        cure="see that all members run the same version, then run the round again",
    )
