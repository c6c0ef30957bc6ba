"""Messages on a stream: length, number, kind and session before each, checked before it is used."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from fedgrpo.ground.errors import MemberLostError, ProtocolError

LARGEST_FRAME = 2**30
"""Bytes of the largest message, so that a peer cannot fill the memory by announcing one."""
_HEADER = struct.Struct(">IQB32s")
_CHUNK = 2**20


class Kind(IntEnum):
    """What a frame says."""

    MESSAGE = 0
    DONE = 1
    """The sender's part is over; closing the stream is no crash."""
    ABORT = 2
    """The sender gave the round up; one byte says which member it lost, if any."""


class Stream(Protocol):
    """The part of a socket that frames need."""

    def recv(self, size: int, /) -> bytes:
        """Receive up to ``size`` bytes, none at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send all bytes."""


@dataclass
class FrameWriter:
    """Numbers and sends one member's frames to one peer."""

    stream: Stream = field(repr=False)
    session: bytes
    sent: int = 0

    def write(self, kind: Kind, payload: bytes) -> None:
        """Send one frame."""
        if len(payload) > LARGEST_FRAME:
            raise ProtocolError(
                f"a message of {len(payload)} bytes exceeds {LARGEST_FRAME}",
                cure="use the ripple circuit, or a smaller adapter",
            )
        view = memoryview(payload)
        header = _HEADER.pack(len(payload), self.sent, kind, self.session)
        self.stream.sendall(header + view[:_CHUNK])
        for at in range(_CHUNK, len(payload), _CHUNK):
            self.stream.sendall(view[at : at + _CHUNK])  # type: ignore[arg-type]
        self.sent += 1


@dataclass
class FrameReader:
    """Receives one peer's frames and refuses any but the next one of this session."""

    stream: Stream = field(repr=False)
    session: bytes
    peer: int
    read: int = 0

    def next(self) -> tuple[Kind, bytes]:
        """Wait for the next frame: its kind and payload.

        Raises
        ------
        MemberLostError
            If the stream ends, before a frame or within one.
        ProtocolError
            If the frame is of another session, out of order, too long or of no known kind.
        """
        length, number, kind, session = _HEADER.unpack(self._exactly(_HEADER.size, "a header"))
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
        return Kind(kind), self._exactly(length, f"message {number}")

    def _exactly(self, size: int, what: str) -> bytes:
        chunks = []
        missing = size
        while missing:
            chunk = self.stream.recv(min(missing, _CHUNK))
            if not chunk:
                raise self._ended(what, size - missing, size)
            chunks.append(chunk)
            missing -= len(chunk)
        return b"".join(chunks)

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
