"""The only room that knows Flower: strategy, client app, messages, checkpoint, and simulation.

Nothing here loads torch until a client trains or the server evaluates: a deployed node starts a
process for every message. Names are therefore resolved when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedgrpo.federation.node.client_app import make_client_app
    from fedgrpo.federation.server.app import make_server_app
    from fedgrpo.federation.server.strategy import FedGRPO
    from fedgrpo.federation.simulation.front_door import simulate
    from fedgrpo.federation.simulation.local_grid import LocalGrid
    from fedgrpo.federation.simulation.result import Result

__all__ = ["FedGRPO", "LocalGrid", "Result", "make_client_app", "make_server_app", "simulate"]

_HOMES = {
    "FedGRPO": "server.strategy",
    "LocalGrid": "simulation.local_grid",
    "Result": "simulation.result",
    "make_client_app": "node.client_app",
    "make_server_app": "server.app",
    "simulate": "simulation.front_door",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
