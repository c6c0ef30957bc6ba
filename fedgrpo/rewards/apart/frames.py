"""What goes between a run and the process in which users' rewards judge."""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import asdict, dataclass
from typing import Self

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Order:
    """What the process is started with.

    Attributes
    ----------
    control:
        Descriptor of its socket.
    names, metrics:
        Reward functions to load, and behind them metrics of users' own.
    cpu_s, timeout_s:
        CPU seconds and seconds of one prompt's group.
    network:
        Whether it may use the network.
    """

    control: int
    names: tuple[str, ...]
    cpu_s: int
    timeout_s: float
    network: bool
    metrics: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Write the order as a command line's argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the order."""
        fields = json.loads(text)
        return cls(**{**fields, **{key: tuple(fields[key]) for key in ("names", "metrics")}})


def send(link: socket.socket, content: bytes) -> None:
    """Send one frame.

    Raises
    ------
    OSError
        If nobody reads.
    """
    link.sendall(_LENGTH.pack(len(content)) + content)


def receive(link: socket.socket, deadline: float | None = None) -> bytes:
    """Read one frame; nothing if the other side is gone.

    Raises
    ------
    TimeoutError
        If it is not there at the deadline (``time.monotonic``).
    """
    head = _exactly(link, _LENGTH.size, deadline)
    return _exactly(link, _LENGTH.unpack(head)[0], deadline) if head else b""


def _exactly(link: socket.socket, size: int, deadline: float | None) -> bytes:
    found = bytearray()
    while len(found) < size:
        link.settimeout(None if deadline is None else max(deadline - time.monotonic(), 1e-3))
        try:
            more = link.recv(min(size - len(found), 1 << 20))
        except ConnectionError:
            more = b""
        if not more:
            return b""
        found += more
    return bytes(found)
