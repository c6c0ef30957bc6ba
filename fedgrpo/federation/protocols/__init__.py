"""How releases are brought together: a folder for each ``aggregation.protocol``.

``NAME/server.py`` has a ``Server`` and ``NAME/node.py`` a ``Node``; what other rooms ask of the
protocol is in its description, :mod:`fedgrpo.settings.protocols`. Sides are loaded when a run needs
them: a deployed node starts a process for every message.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from fedgrpo.settings.protocols import protocol_of

if TYPE_CHECKING:
    from fedgrpo.federation.protocols.base import NodeSide, ServerSide
    from fedgrpo.settings import Settings


def server_side(settings: Settings) -> type[ServerSide]:
    """The server's side of the run's protocol."""
    module = import_module(f"{__name__}.{protocol_of(settings).name}.server")
    return cast("type[ServerSide]", module.Server)


def node_side(settings: Settings) -> NodeSide:
    """A node's side of the run's protocol."""
    module = import_module(f"{__name__}.{protocol_of(settings).name}.node")
    return cast("NodeSide", module.Node())
