"""What settings, sites, accountant and ledger know of each protocol; nothing here knows Flower.

A protocol is how releases are brought together: a description here, and a folder of the same name
in :mod:`fedgrpo.federation.protocols` with the server's side and the node's. To add one, write both
and name it in :data:`PROTOCOLS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgrpo.settings.protocols.base import Phase, Protocol, impossible
from fedgrpo.settings.protocols.buckets import Buckets
from fedgrpo.settings.protocols.committee import Committee
from fedgrpo.settings.protocols.plain import Plain

if TYPE_CHECKING:
    from fedgrpo.settings.sections.tree import Tree as Settings

__all__ = ["PROTOCOLS", "Phase", "Protocol", "protocol_of"]

PROTOCOLS: dict[str, Protocol] = {p.name: p for p in (Buckets(), Committee(), Plain())}
"""Every value of ``aggregation.protocol``."""


def protocol_of(settings: Settings) -> Protocol:
    """The protocol that a run follows; raises SettingsError if there is none of that name."""
    if (name := settings.aggregation.protocol) in PROTOCOLS:
        return PROTOCOLS[name]
    raise impossible(
        f"aggregation.protocol = {name!r} is not known", f"choose from {', '.join(PROTOCOLS)}"
    )
