"""The SuperLink is held to the operator's book: confirmed keys are let in, former ones are not."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping

from fedgrpo.federation.deployment.flower_internals.control import (
    REGISTER_NODE,
    UNREGISTER_NODE,
    KnownNode,
    register_node,
    unregister_node,
)
from fedgrpo.federation.deployment.gateway.enrolment.book import Book, Enrolled, Sites
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.ground.errors import RunError

LOG = logging.getLogger(__name__)

PATIENCE_S = 60.0
"""In which a SuperLink starts without a word of it."""
LOOK_S, AT_LEAST_S = 0.5, 60.0
"""How often the book is looked at, and after how long the SuperLink is asked whatever it says."""


async def keep_registered(inner: Inner, book: Book) -> None:
    """Bring every change of the book to the SuperLink, until this is cancelled.

    Keys that the book does not know stay as they are: an operator may register by hand.
    """
    done: Sites | None = None
    asked, began, failed = -math.inf, time.monotonic(), ""
    while True:
        try:
            sites = book.sites()
            if sites is not done or time.monotonic() - asked > AT_LEAST_S:
                await bring(inner, sites)
                done, asked = sites, time.monotonic()
                failed = ""
        except (RefusedError, RunError) as error:
            if str(error) != failed and time.monotonic() - began > PATIENCE_S:
                LOG.warning("changes of the book wait: %s", error, extra={"code": "book-waits"})
                failed = str(error)
        await asyncio.sleep(LOOK_S)


async def bring(inner: Inner, sites: Sites) -> None:
    """Register the keys that take part, and unregister those that do not any more; raises
    RefusedError if the SuperLink is not there. What it refuses of one site (a key that was
    unregistered by hand, say) keeps no other one out.
    """
    known = await inner.nodes()
    for name, site in sites.items():
        try:
            await _bring(inner, name, site, known)
        except RefusedError as error:
            LOG.warning(
                "what the book has of %s is not taken: %s",
                name,
                error,
                extra={"code": "book-waits"},
            )


async def _bring(inner: Inner, name: str, site: Enrolled, known: Mapping[bytes, KnownNode]) -> None:
    if site.key and site.key.encode() not in known:
        await inner.told(REGISTER_NODE, register_node(site.key.encode()))
        LOG.info("%s takes part from now on", name)
    for key in site.former:
        if node := known.get(key.encode()):
            await inner.told(UNREGISTER_NODE, unregister_node(node.number))
            LOG.info("a key of %s takes part no more", name)
