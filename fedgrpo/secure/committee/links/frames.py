"""Messages on a stream: length, number, kind and session before each, checked before it is used."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from fedgrpo.ground.errors import MemberLostError, ProtocolError

LARGEST_FRAME = 2**30
"""Bytes of the largest message, so that a peer cannot fill the memory by announcing one."""
_HEADER = struct.Struct(">IQB32s")


class Kind(IntEnum):
    """What a frame says."""

    MESSAGE = 0
    DONE = 1
    """The sender's part is over; closing the stream is no crash."""
    ABORT = 2
    """The sender gave the round up; one byte says which member it lost, if any."""


@dataclass(frozen=True)
class Stream:
    """A connection, which is cut when an error leaves its context; every use of one that is broken
    raises OSError, or EOFError where it ends too early.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __post_init__(self) -> None:
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, reason: BaseException | None, trace: object) -> None:
        if reason:
            self.cut()

    async def write(self, data: bytes) -> None:
        """Write, and wait while the other side takes nothing more."""
        self.writer.write(data)
        await self.writer.drain()

    def cut(self) -> None:
        """Hang up at once."""
        self.writer.transport.abort()


@dataclass
class FrameWriter:
    """Numbers and sends one member's frames to one peer."""

    stream: Stream = field(repr=False)
    session: bytes
    sent: int = 0

    async def write(self, kind: Kind, payload: bytes) -> None:
        """Send one frame."""
        if len(payload) > LARGEST_FRAME:
            raise ProtocolError(
                f"a message of {len(payload)} bytes exceeds {LARGEST_FRAME}",
                cure="use the ripple circuit, or a smaller adapter",
            )
        self.stream.writer.write(_HEADER.pack(len(payload), self.sent, kind, self.session))
        await self.stream.write(payload)
        self.sent += 1


@dataclass
class FrameReader:
    """Receives one peer's frames and refuses any but the next one of this session."""

    stream: Stream = field(repr=False)
    session: bytes
    peer: int
    read: int = 0

    async def next(self) -> tuple[Kind, bytes]:
        """Wait for the next frame: its kind and payload.

        Raises
        ------
        MemberLostError
            If the stream ends, before a frame or within one.
        ProtocolError
            If the frame is of another session, out of order, too long or of no known kind.
        """
        length, number, kind, session = _HEADER.unpack(
            await self._exactly(_HEADER.size, "a header")
        )
        if session != self.session:
            raise self._broken(
                f"sent a message of another round: {session.hex()[:16]} instead of "
                f"{self.session.hex()[:16]} (replayed, or it is behind)",
                "start the round again at all members",
            )
        if number != self.read:
            raise self._broken(
                f"sent message {number} where {self.read} was due (replayed, or one was lost)",
                "start the round again at all members",
            )
        if length > LARGEST_FRAME or kind not in list(Kind):
            raise self._broken(
                f"announced a message of {length} bytes and kind {kind}",
                "see that it runs the same version",
            )
        self.read += 1
        return Kind(kind), await self._exactly(length, f"message {number}")

    async def _exactly(self, size: int, what: str) -> bytes:
        try:
            return await self.stream.reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise self._ended(what, len(error.partial), size) from None

    def _ended(self, what: str, got: int, size: int) -> MemberLostError:
        cut = got > 0 or what != "a header"
        problem = f"cut {what} short, at {got} of {size} bytes" if cut else "closed its connection"
        return MemberLostError(
            self.peer,
            f"committee member {self.peer} {problem} in mid-round: it crashed or was cut off",
            cure=f"see the log of member {self.peer} and restart it, then run the round again",
        )

    def _broken(self, problem: str, cure: str) -> ProtocolError:
        return ProtocolError(f"committee member {self.peer} {problem}", cure=cure)
