"""Process: a site's model process. What it does is in :mod:`fedgrpo.federation.node.residence`."""

from __future__ import annotations

import socket

from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.executor.apps import MODEL, load
from fedgrpo.ground.machine import be_killed_first


def main() -> None:
    """Answer orders until there are none."""
    said = told()
    # A site without this process still answers, with zero under the noise.
    be_killed_first(500)
    with socket.socket(fileno=said["door"]) as door:
        door.set_inheritable(False)
        load(MODEL)(door, said["idle_s"], said["asked"])


if __name__ == "__main__":
    main()
