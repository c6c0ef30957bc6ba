"""The ClientApp of a site whose model process computes."""

from __future__ import annotations

from pathlib import Path

from flwr.clientapp import ClientApp

from fedgrpo.federation.node.client_app import make_client_app
from fedgrpo.federation.node.residence.clients import ResidentClients


def make_resident_app(door: str) -> ClientApp:
    """Build the ClientApp of a data holder.

    Parameters
    ----------
    door:
        Path of the socket at which a model process answers, or is started for whoever comes.
    """
    return make_client_app(ResidentClients(Path(door)))
