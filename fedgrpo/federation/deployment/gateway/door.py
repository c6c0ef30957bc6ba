"""Who may connect at all: so many connections of one address at a time, and so many a second.

Adversary: a stranger with one machine, who opens connections and says nothing. Each costs a place,
and a handshake, before a word is read of who it is; so they are counted where they are accepted.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from fedgrpo.federation.deployment.gateway.rates import Rate, Rates
from fedgrpo.federation.deployment.gateway.refused import RefusedError

AT_ONCE = 128
"""Connections of one address; a node has five or so."""
ANEW = Rate(50, 500)
"""New connections of one address. Nodes keep theirs."""


class Door(socket.socket):
    """A listening socket that closes what is too much before TLS begins.

    Parameters
    ----------
    listening:
        What it takes the place of.
    """

    def __init__(self, listening: socket.socket) -> None:
        kind = listening.family, listening.type, listening.proto
        super().__init__(*kind, fileno=listening.detach())
        self._inside: Counter[str] = Counter()
        self._anew = Rates(ANEW)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one; raises ConnectionAbortedError, after which event loops go on, if it is one
        too many.
        """
        guest, address = super().accept()
        sender = neighbourhood(address[0])
        try:
            self._anew.take(sender, time.monotonic())
        except RefusedError:
            guest.close()
            raise ConnectionAbortedError from None
        if self._inside[sender] >= AT_ONCE:
            guest.close()
            raise ConnectionAbortedError
        self._inside[sender] += 1
        return _Guest(guest, lambda: self._leave(sender)), address

    def _leave(self, sender: str) -> None:
        self._inside[sender] -= 1
        self._inside += Counter()  # Forgets those at zero.


class _Guest(socket.socket):
    """An accepted connection that says when it is closed."""

    def __init__(self, accepted: socket.socket, left: Callable[[], None]) -> None:
        kind = accepted.family, accepted.type, accepted.proto
        super().__init__(*kind, fileno=accepted.detach())
        self._left: Callable[[], None] | None = left

    def close(self) -> None:
        super().close()
        left, self._left = self._left, None
        if left:
            left()


def neighbourhood(host: str) -> str:
    """Whom an address stands for: of IPv6 everybody has 2^64, which count as one."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, 64), strict=False))
