"""``plain``: the server sees each client's release, and is trusted with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedgrpo.settings.protocols.base import Protocol, SiteLimits

if TYPE_CHECKING:
    from fedgrpo.settings.sections.tree import Tree as Settings


class Plain(Protocol):
    """Groups of one, which the robust rule can trim most finely."""

    name = "plain"
    shows = "your update by itself"
    sees = "vectors of single clients"
    trusted_server = True

    def adversaries(self, settings: Settings, size: int) -> list[tuple[str, float]]:
        """The server, which faces a client's own noise and nothing else."""
        sees = "server that sees each client's own noised vector, with all other clients"
        return [(sees, settings.privacy.noise_multiplier)]

    def page(self, limits: SiteLimits) -> Iterator[str]:
        """That there is nothing between update and server."""
        yield (
            "This policy ALSO allows runs in which the server is shown your update by itself, and "
            "is trusted with it."
        )
