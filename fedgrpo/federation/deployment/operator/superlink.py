"""Process: the SuperLink behind the gateway."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import uvicorn

from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.flower_internals.servers import superlink
from fedgrpo.federation.deployment.log import log_to_stderr
from fedgrpo.federation.deployment.operator.guard import Guard

KEEP_ALIVE_S = 75
"""Longer than the gateway keeps a connection: whoever ends one first must be who asks."""


def main() -> None:
    """Serve at the socket that this process inherited."""
    said = told()
    # It would tell of each question that it is asked.
    log_to_stderr(flower=logging.WARNING)
    listening = socket.socket(fileno=said["socket"])
    certificate, key = Path(said["certificate"]), Path(said["key"])
    port = listening.getsockname()[1]
    app = superlink(Path(said["database"]), certificate, key, port, said["secret"])
    config = uvicorn.Config(
        Guard(app, said["bearer"]),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
