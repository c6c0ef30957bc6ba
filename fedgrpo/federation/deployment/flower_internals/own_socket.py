"""A way to this machine's own processes, and to no other user's."""

from __future__ import annotations

import socket
from typing import Any

import httpcore
import httpx

from fedgrpo.ground.machine import is_own


class OwnSocket(httpx.HTTPTransport):
    """To a Unix socket at which this user's own process listens.

    Parameters
    ----------
    path:
        Of the socket.
    """

    def __init__(self, path: str) -> None:
        # There is no TLS on this way: public authorities are not loaded for each message (20 ms).
        super().__init__(verify=False)
        self._pool = httpcore.ConnectionPool(uds=path, network_backend=_OwnPeers())


class _OwnPeers(httpcore.NetworkBackend):
    """Connects to no other user, who could hand in orders and a configuration of his own."""

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.NetworkStream:
        stream = httpcore.SyncBackend().connect_unix_socket(path, timeout, socket_options)
        connection = stream.get_extra_info("socket")
        if isinstance(connection, socket.socket) and is_own(connection):
            return stream
        stream.close()
        raise httpcore.ConnectError(f"another user listens at {path}")
