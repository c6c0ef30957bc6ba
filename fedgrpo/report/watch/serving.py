"""The application, served."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

MOST_AT_ONCE, IDLE_S = 40, 20
"""Requests at one time, and seconds for which a connection is kept without one."""


def serve(app: ASGIApp, listening: socket.socket, tls: tuple[Path, Path] | None = None) -> None:
    """Answer until a signal ends it.

    Parameters
    ----------
    app:
        What answers.
    listening:
        Where.
    tls:
        Certificate chain and key, PEM; None where nobody but this machine listens in.
    """
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_AT_ONCE,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=2,
    )
    uvicorn.Server(config).run(sockets=[listening])
