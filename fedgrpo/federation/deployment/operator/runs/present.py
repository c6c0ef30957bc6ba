"""Which sites there are, by name, and which of them are there now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.federation.deployment.flower_internals.control import KnownNode
from fedgrpo.federation.deployment.gateway.enrolment.book import (
    TAKES_PART,
    WAITS,
    Book,
    Enrolled,
    Sites,
)
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.federation.deployment.operator.folder import StateFolder
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RunError
from fedgrpo.report.wording import ago

BY_HAND = "registered by hand"
"""State of a site of which the book has nothing."""


@dataclass(frozen=True)
class LastDrop:
    """Why a round was closed without a site.

    Attributes
    ----------
    round:
        The last one that was.
    reason, cure:
        In words.
    code:
        Of the site's refusal; empty where it did not refuse.
    times:
        Rounds of the run that were closed without it for that reason.
    time:
        Unix time, in seconds, of the last.
    """

    round: int
    reason: str
    cure: str
    code: str
    times: int
    time: float


@dataclass(frozen=True)
class SeenSite:
    """A site as its operator sees it.

    Attributes
    ----------
    name:
        From the book; of a node that was registered by hand, its id.
    state:
        What it is, in words.
    fingerprint:
        Of its key; empty if none came.
    node:
        Flower's id; 0 while it has none.
    online:
        Whether it is there; None while the server is not running, or the site has no node.
    seen:
        Unix time, in seconds, until which it was there; 0 if it never was.
    version:
        Of fedgrpo, as the site said last; empty if it never did.
    expires:
        Unix time, in seconds, at which an unused invitation ends; 0 without one.
    dropped:
        Why the run's last round without it was; None if there was none.
    """

    name: str
    state: str
    fingerprint: str = ""
    node: int = 0
    online: bool | None = None
    seen: float = 0.0
    version: str = ""
    expires: int = 0
    dropped: LastDrop | None = None

    @property
    def takes_part(self) -> bool:
        """Whether rounds wait for it."""
        return self.state in (TAKES_PART, BY_HAND)

    @property
    def waits(self) -> bool:
        """Whether its key is to be confirmed."""
        return self.state == WAITS

    @property
    def differs(self) -> bool:
        """Whether it takes part and runs another version than this server."""
        return self.takes_part and self.version not in ("", VERSION)

    def whereabouts(self, now: float) -> str:
        """Whether it is there, in words; empty if nobody can say."""
        if self.online is None:
            return ""
        if self.online:
            return "online"
        return f"last seen {ago(now - self.seen)}" if self.seen else "never seen"


def nodes(folder: Path) -> Mapping[bytes, KnownNode]:
    """Ask the running server for its nodes, by their keys; raises RunError if it is not running."""
    state = StateFolder(folder.absolute())
    address, bearer = state.read_access()

    async def asked() -> Mapping[bytes, KnownNode]:
        inner = Inner(address, str(state.certificate), bearer)
        try:
            return await inner.nodes()
        finally:
            await inner.close()

    try:
        return asyncio.run(asked())
    except (RefusedError, OSError):
        raise RunError(
            f"the server of {folder} is not running, or only just starts",
            cure=f"start it: fedgrpo server {folder}",
        ) from None


def seen_sites(
    sites: Sites, known: Mapping[bytes, KnownNode] | None, now: float
) -> tuple[SeenSite, ...]:
    """Put the book and the server's nodes together.

    Parameters
    ----------
    sites:
        Of the book.
    known:
        Of the server; None while it is not running.
    now:
        Unix time, in seconds.
    """
    named = tuple(_seen(name, site, known, now) for name, site in sorted(sites.items()))
    ours = {site.key.encode() for site in sites.values()}
    by_hand = {key: node for key, node in (known or {}).items() if key not in ours}
    return named + tuple(
        SeenSite(
            str(node.number),
            BY_HAND,
            node=node.number,
            online=node.online,
            seen=node.until,
        )
        for node in by_hand.values()
    )


def _seen(
    name: str, site: Enrolled, known: Mapping[bytes, KnownNode] | None, now: float
) -> SeenSite:
    node = (known or {}).get(site.key.encode()) if site.key else None
    waiting = site.token and not site.used_by and now < site.expires
    return SeenSite(
        name,
        site.state(now),
        fingerprint=site.fingerprint,
        node=node.number if node else 0,
        online=node.online if node else None,
        seen=node.until if node else 0.0,
        version=site.version,
        expires=site.expires if waiting else 0,
    )


def waiting_line(sites: Sequence[SeenSite], needed: int, now: float) -> str:
    """Say who is there and who is missing: ``waiting: 3 of 9 sites are here (...), missing ...``.

    Parameters
    ----------
    sites:
        All.
    needed:
        Sites with which a round begins.
    now:
        Unix time, in seconds.
    """
    part = [site for site in sites if site.takes_part]
    here = [site.name for site in part if site.online]
    away = [
        f"{s.name} ({s.whereabouts(now) or 'not registered yet'})" for s in part if not s.online
    ]
    line = "waiting: " if len(here) < needed else ""
    line += f"{len(here)} of {max(needed, len(part))} sites are here"
    line += f" ({', '.join(here)})" if here else ""
    line += f", missing {', '.join(away)}" if away else ""
    if len(part) < needed:
        line += f"; a round needs {needed}, and {len(part)} take part: invite more"
    return line


def present(folder: Path, now: float) -> tuple[SeenSite, ...]:
    """Sites of a running server; raises RunError if it is not running."""
    return seen_sites(Book(folder).sites(), nodes(folder), now)
