"""Members on loopback, for tests: free ports, and wires that record, cut or hold what passes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fedgrpo.secure.committee.keys.identity import Committee
from fedgrpo.secure.committee.links.handshake import Party
from fedgrpo.secure.committee.links.tls import TlsLinks, connect, listen
from tests.secure.committee.parts import COMMITTEE, IDENTITIES

Result = TypeVar("Result")


@dataclass
class Wire:
    """Forwards one port to another and keeps every byte of both directions."""

    target: socket.socket
    front: socket.socket = field(default_factory=lambda: listen("127.0.0.1:0"))
    seen: list[bytes] = field(default_factory=list)
    cut_after: int | None = None
    """Bytes to the listener after which a connection is cut."""
    connections: list[socket.socket] = field(default_factory=list)

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self.front.shutdown(socket.SHUT_RDWR)
        self.front.close()
        for connection in self.connections:
            hang_up(connection)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.front.accept()
                far = socket.create_connection(self.target.getsockname())
                self.connections += [near, far]
                for source, sink, limit in ((near, far, self.cut_after), (far, near, None)):
                    threading.Thread(
                        target=self._pump, args=(source, sink, limit), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if limit is not None and passed + len(data) > limit:
                    break
                passed += len(data)
                self.seen.append(data)
                sink.sendall(data)
        hang_up(source)
        hang_up(sink)


def hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@dataclass(frozen=True)
class Network:
    """A committee whose members can be reached, over wires if asked for."""

    committee: Committee
    listeners: tuple[socket.socket, ...]
    wires: tuple[Wire, ...]

    def party(self, index: int, session: bytes | None = None, **changes: object) -> Party:
        session = self.committee.session("1", 2) if session is None else session
        party = Party(index, IDENTITIES[index], self.committee, session)
        return replace(party, **changes)  # type: ignore[arg-type]

    def link(self, party: Party, timeout_s: float = 10.0) -> TlsLinks:
        return connect(party, self.listeners[party.index], timeout_s)


@contextmanager
def network(wired: bool = False) -> Iterator[Network]:
    with ExitStack() as stack:
        listeners = tuple(stack.enter_context(listen("127.0.0.1:0")) for _ in range(4))
        wires = tuple(Wire(listener) for listener in listeners) if wired else ()
        for wire in wires:
            wire.start()
            stack.callback(wire.close)
        fronts = [wire.front for wire in wires] or listeners
        addresses = tuple(f"127.0.0.1:{front.getsockname()[1]}" for front in fronts)
        yield Network(replace(COMMITTEE, addresses=addresses), listeners, wires)


def together(*work: Callable[[], Result]) -> list[Result | Exception]:
    """Run in a thread each; results or exceptions, in order."""
    ends: list[Result | Exception | None] = [None] * len(work)

    def run(place: int) -> None:
        try:
            ends[place] = work[place]()
        except Exception as error:
            ends[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return [end for end in ends if end is not None]
