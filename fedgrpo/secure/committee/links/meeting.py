"""How members find each other: all dial and all answer, and strangers are in nobody's way.

Adversary: anybody who reaches a member's port. Until a connection has proven that it is a member's,
it has :data:`UNPROVEN_S` seconds altogether, however it spreads what it sends, and is one of
:data:`MOST_UNPROVEN`, of which the oldest makes room for the next: connections that say nothing, or
little, keep no member out, and none of them ends the wait. A member that is turned away all the
same dials again at once. Who opens connections faster than a member's handshake takes, hundreds at
a time and all the time, still keeps members apart: that is a firewall's to stop, which lets
members' addresses in.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from functools import partial

from fedgrpo.ground.errors import MemberLostError, ProtocolError
from fedgrpo.secure.committee.links.frames import Stream
from fedgrpo.secure.committee.links.handshake import Party, StrangerError, answer, dial

UNPROVEN_S = 3.0
"""Seconds in which a connection proves that it is a member's."""
MOST_UNPROVEN = 64
"""Connections at a time that have not."""
_RETRY_S = 0.05
_DIALLED_S = 10.0
_PARTING_S = 1.0
"""Most seconds in which the others learn, by handshakes under way, what is amiss."""
_MOST_NOTES = 8
"""Different things that strangers did which an error repeats."""


class Meeting:
    """Dials and answers until all are there or the time is up."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._outgoing: dict[int, Stream] = {}
        self._incoming: dict[int, Stream] = {}
        self._ended: asyncio.Queue[ProtocolError | None] = asyncio.Queue()
        self._parting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unproven: dict[asyncio.Task[None], None] = {}
        self._refusals: dict[int, str] = {}
        self._turned_away: dict[str, None] = {}

    async def gather(
        self, listener: socket.socket, timeout_s: float
    ) -> tuple[dict[int, Stream], dict[int, Stream]]:
        """Return the streams to write on and those to read, by peer.

        Raises
        ------
        MemberLostError
            If a member does not turn up in time; the error repeats who was turned away.
        ProtocolError
            If a member answers with another key, or differs in settings, keys or round.
        """
        most = 2 * MOST_UNPROVEN
        server = await asyncio.start_server(self._accept, sock=listener.dup(), backlog=most)
        for peer in self._party.peers:
            self._start(self._dial(peer))
        try:
            async with asyncio.timeout(timeout_s):
                error = await self._ended.get()
            self._parting = error is not None
        except TimeoutError:
            error = self._nobody()
        finally:
            server.close()
        if self._parting:
            await asyncio.wait(self._tasks, timeout=_PARTING_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if error:
            for stream in (*self._outgoing.values(), *self._incoming.values()):
                stream.cut()
            raise error
        return self._outgoing, self._incoming

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _take(self, streams: dict[int, Stream], peer: int, stream: Stream) -> None:
        """Keep a member's stream, unless there is one."""
        if peer in streams:
            stream.cut()
            return
        streams[peer] = stream
        if self._party.peers == set(self._outgoing) == set(self._incoming):
            self._ended.put_nowait(None)

    def _nobody(self) -> MemberLostError:
        missing = min(self._party.peers - (set(self._outgoing) & set(self._incoming)))
        address = self._party.committee.addresses[missing]
        notes = [self._refusals[missing]] if missing in self._refusals else []
        absent = f"committee member {missing} ({address}) did not connect in time"
        return MemberLostError(
            missing,
            "; ".join([absent, *notes, *self._turned_away]),
            cure="see that it runs, that its address is right and that its port can be reached",
        )

    async def _dial(self, peer: int) -> None:
        """Dial until there is an answer: members do not start at the same moment."""
        host, _, port = self._party.committee.addresses[peer].rpartition(":")
        while peer not in self._outgoing and not self._parting:
            try:
                async with asyncio.timeout(_DIALLED_S):
                    with Stream(*await asyncio.open_connection(host, int(port))) as stream:
                        await dial(self._party, peer, stream)
                self._take(self._outgoing, peer, stream)
            except MemberLostError as error:
                self._refusals[peer] = error.problem
            except ProtocolError as error:
                self._ended.put_nowait(error)
            except OSError:
                pass
            await asyncio.sleep(_RETRY_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._unproven) >= MOST_UNPROVEN:
            oldest = next(iter(self._unproven))
            del self._unproven[oldest]
            oldest.cancel()
        task = self._start(self._answer(Stream(reader, writer)))
        self._unproven[task] = None
        task.add_done_callback(self._prove)

    def _prove(self, task: asyncio.Task[None]) -> None:
        self._unproven.pop(task, None)

    async def _answer(self, stream: Stream) -> None:
        task = asyncio.current_task()
        assert task
        try:
            async with asyncio.timeout(UNPROVEN_S):
                with stream:
                    peer = await answer(self._party, stream, partial(self._prove, task))
            self._take(self._incoming, peer, stream)
        except StrangerError as error:
            if len(self._turned_away) < _MOST_NOTES:
                self._turned_away[error.problem] = None  # Each once: they come again and again.
        except (MemberLostError, OSError):
            pass
        except ProtocolError as error:
            self._ended.put_nowait(error)
