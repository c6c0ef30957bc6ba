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

import itertools
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from fedgrpo.ground.errors import MemberLostError, ProtocolError
from fedgrpo.secure.committee.links.handshake import Party, StrangerError, answer, dial

UNPROVEN_S = 3.0
"""Seconds in which a connection proves that it is a member's."""
MOST_UNPROVEN = 64
"""Connections at a time that have not."""
_RETRY_S = 0.05
_DIALLED_S = 10.0
_MOST_NOTES = 8
"""Different things that strangers did which an error repeats."""


class Meeting:
    """Dials and answers, each in its own thread, until all are there or the time is up."""

    def __init__(self, party: Party, listener: socket.socket, deadline: float) -> None:
        self._party = party
        self._listener = listener
        self._deadline = deadline
        self._stop = threading.Event()
        self._refusals: dict[int, str] = {}
        self._turned_away: dict[str, None] = {}
        self._found: queue.Queue[tuple[str, int, ssl.SSLSocket] | ProtocolError] = queue.Queue()
        self._unproven = Unproven()

    def gather(self) -> tuple[dict[int, ssl.SSLSocket], dict[int, ssl.SSLSocket]]:
        """Return the streams to write on and those to read, by peer.

        Raises
        ------
        MemberLostError
            If a member does not turn up in time; the error repeats who was turned away.
        ProtocolError
            If a member answers with another key, or differs in settings, keys or round.
        """
        threads = [self._thread(self._accept)]
        threads += [self._thread(partial(self._dial, peer)) for peer in self._party.peers]
        streams: dict[str, dict[int, ssl.SSLSocket]] = {"to": {}, "from": {}}
        try:
            while any(self._party.peers - set(found) for found in streams.values()):
                self._collect(streams)
        except BaseException:
            for found in streams.values():
                for stream in found.values():
                    stream.close()
            raise
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self._unproven.close()
        return streams["to"], streams["from"]

    def _collect(self, streams: dict[str, dict[int, ssl.SSLSocket]]) -> None:
        try:
            found = self._found.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            raise self._nobody(streams) from None
        if isinstance(found, StrangerError):
            if len(self._turned_away) < _MOST_NOTES:
                self._turned_away[found.problem] = None  # Each once: they come again and again.
        elif isinstance(found, ProtocolError):
            raise found
        elif found[1] in streams[found[0]]:
            found[2].close()
        else:
            streams[found[0]][found[1]] = found[2]

    def _nobody(self, streams: dict[str, dict[int, ssl.SSLSocket]]) -> MemberLostError:
        missing = sorted(p for f in streams.values() for p in self._party.peers - set(f))[0]
        address = self._party.committee.addresses[missing]
        notes = [self._refusals[missing]] if missing in self._refusals else []
        return MemberLostError(
            missing,
            "; ".join(
                [
                    f"committee member {missing} ({address}) did not connect in time",
                    *notes,
                    *self._turned_away,
                ]
            ),
            cure="see that it runs, that its address is right and that its port can be reached",
        )

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def _dial(self, peer: int) -> None:
        """Dial until there is an answer: members do not start at the same moment."""
        host, _, port = self._party.committee.addresses[peer].rpartition(":")
        while not self._stop.wait(_RETRY_S):
            try:
                connection = socket.create_connection((host, int(port)), timeout=_DIALLED_S)
            except OSError:
                continue
            try:
                _prepare(connection, min(self._left, _DIALLED_S))
                self._found.put(("to", peer, dial(self._party, peer, connection)))
                return
            except MemberLostError as error:
                connection.close()
                self._refusals[peer] = error.problem
            except ProtocolError as error:
                connection.close()
                self._found.put(error)
                return

    @property
    def _left(self) -> float:
        return max(0.1, self._deadline - time.monotonic())

    def _accept(self) -> None:
        self._listener.settimeout(_RETRY_S)
        while not self._stop.is_set():
            self._unproven.sweep()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                continue
            self._thread(partial(self._answer, connection, self._unproven.add(connection)))

    def _answer(self, connection: socket.socket, number: int) -> None:
        proven = partial(self._unproven.prove, number)
        try:
            _prepare(connection, UNPROVEN_S)
            peer, stream = answer(self._party, connection, proven)
            self._found.put(("from", peer, stream))
        except (MemberLostError, OSError):
            connection.close()
        except ProtocolError as error:
            connection.close()
            self._found.put(error)
        finally:
            self._unproven.cut(number)


class Unproven:
    """Connections that have not proven yet that they are a member's, oldest first.

    Each is cut off when its time is up, or when its place is taken. The connection is held by a
    duplicate: the one that is answered changes hands when it becomes a TLS stream.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, tuple[float, socket.socket]] = {}
        self._number = itertools.count()

    def add(self, connection: socket.socket) -> int:
        """Hold a connection, and return its number."""
        number = next(self._number)
        with self._lock:
            if len(self._held) >= MOST_UNPROVEN:
                self._cut(next(iter(self._held)))
            self._held[number] = time.monotonic(), connection.dup()
        return number

    def sweep(self) -> None:
        """Cut off those whose time is up."""
        with self._lock:
            begun = time.monotonic() - UNPROVEN_S
            for number in [n for n, (since, _) in self._held.items() if since < begun]:
                self._cut(number)

    def prove(self, number: int) -> None:
        """Let go of a member's connection; raises OSError if it has been cut off."""
        with self._lock:
            if number not in self._held:
                raise ConnectionAbortedError
            self._held.pop(number)[1].close()

    def cut(self, number: int) -> None:
        """Cut a connection off, if it is held still."""
        with self._lock:
            if number in self._held:
                self._cut(number)

    def close(self) -> None:
        """Cut off all."""
        with self._lock:
            for number in list(self._held):
                self._cut(number)

    def _cut(self, number: int) -> None:
        _, held = self._held.pop(number)
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)
        held.close()


def _prepare(connection: socket.socket, timeout_s: float) -> None:
    connection.settimeout(timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
