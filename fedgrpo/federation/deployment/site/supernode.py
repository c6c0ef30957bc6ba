"""Process: a site's SuperNode."""

from __future__ import annotations

import socket

from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.flower_internals.servers import NodeStart, run_supernode


def main() -> None:
    """Serve the executor at the socket that this process inherited."""
    said = told()
    listening = socket.socket(fileno=said.pop("socket"))
    run_supernode(NodeStart(**said), listening)


if __name__ == "__main__":
    main()
