"""Process: a site's model process. What it does is in :mod:`fedgrpo.federation.node.residence`."""

from __future__ import annotations

import socket

from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.executor.apps import MODEL, load


def main() -> None:
    """Answer orders until there are none."""
    said = told()
    with socket.socket(fileno=said["door"]) as door:
        door.set_inheritable(False)
        load(MODEL)(door, said["idle_s"])


if __name__ == "__main__":
    main()
