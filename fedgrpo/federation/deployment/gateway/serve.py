"""The gateway's listening side: TLS 1.3, and no patience for who connects and says nothing."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedgrpo.federation.deployment.gateway.door import Door
from fedgrpo.ground.errors import RunError
from fedgrpo.report.watch.serving import server as secured

HEAD_S = 20.0
"""Longest from a connection, or from an answer, to the end of a request's head or of a body that
nobody wants."""
MOST_CONNECTIONS = 1000
LONGEST_HEAD = 16_384
IDLE_S = 75
"""A connection without a request is kept so long: nodes look in every few seconds."""


class Impatient(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, that ends connections whose next request does not come."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting until a head is whole, or an unwanted body is over."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self.timeout_keep_alive_task is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was refused, or for a next head that has begun."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def server(app: ASGIApp, certificate: Path, key: Path) -> uvicorn.Server:
    """Make the server, not yet listening.

    Parameters
    ----------
    app:
        What answers.
    certificate, key:
        Of its TLS: PEM, the chain first.

    Raises
    ------
    RunError
        If they cannot be used.
    """
    return secured(
        app,
        (certificate, key),
        loop="asyncio",  # Others accept by themselves, past the door.
        http=Impatient,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=LONGEST_HEAD,
    )


def listen(host: str, port: int) -> socket.socket:
    """Take a port, behind a door; raises RunError if it cannot be taken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return Door(socket.create_server((host, port), family=family, backlog=256))
    except OSError as error:
        raise RunError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            cure="choose another port with --port, or end who listens there",
        ) from None
