"""An application, served: over TLS 1.3 or to this machine alone, and not a word of who serves."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from fedgrpo.ground.errors import RunError

LOOKED_AT: dict[str, Any] = {
    "limit_concurrency": 40,
    "timeout_keep_alive": 20,
    "timeout_graceful_shutdown": 2,
}
"""Limits of a page: requests at one time, and seconds that a connection is kept without one."""


def server(app: ASGIApp, tls: tuple[Path, Path] | None = None, **limits: Any) -> uvicorn.Server:
    """Make a server, not yet listening.

    Parameters
    ----------
    app:
        What answers.
    tls:
        Certificate chain and key, PEM; None where nobody but this machine listens in.
    limits:
        More of uvicorn's own settings.

    Raises
    ------
    RunError
        If certificate and key cannot be used.
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
        date_header=False,
        proxy_headers=False,
        **limits,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise RunError(
            f"certificate {certificate} with key {key} cannot be used: {error}",
            cure="give a PEM certificate with --certificate, and its private key with --key",
        ) from None
    if config.ssl:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return uvicorn.Server(config)
