"""Ports for servers of one's own, chosen by who starts them."""

from __future__ import annotations

import random
import socket

_RANGE = range(20_000, 32_768)
"""Below what Linux, macOS and Windows give to outgoing connections and to who asks for any port:
until its server listens, nobody gets a chosen one by chance. Ray's workers are below this."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface on which nobody listens, in random order.

    Raises
    ------
    OSError
        If there are not as many.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(_RANGE, len(_RANGE)):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"{len(found)} of {count} ports are free from {_RANGE[0]} to {_RANGE[-1]}")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
