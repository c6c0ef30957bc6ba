"""A client app as a user may write it, of which one client hangs and one dies in round 1."""

from __future__ import annotations

import os

import numpy as np

from fedgrpo.federation import make_client_app
from fedgrpo.privacy.release import release_update
from fedgrpo.settings import METRICS


def clients():
    """A factory of clients; inside a function, so that it travels to Ray's processes by value."""

    class Client:
        """Releases nothing of interest, if it comes to that."""

        def __init__(self, number: int) -> None:
            self.number = number

        def contribute(self, adapter, plan, round, key, watch):
            """See :class:`fedgrpo.federation.node.clients.interfaces.Client`."""
            if (self.number, round) == (0, 1):
                os._exit(1)
            while (self.number, round) == (1, 1):
                pass
            delta = np.full(len(adapter.vector), 1e-4)
            return release_update(delta, np.full(len(METRICS), 0.5), plan, key)

    return lambda settings, node: Client(int(node["partition-id"]))


app = make_client_app(clients())
