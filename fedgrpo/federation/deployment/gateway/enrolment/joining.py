"""The door for sites that come with an invitation."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from starlette.responses import Response
from starlette.types import Receive

from fedgrpo.federation.deployment.gateway import bodies
from fedgrpo.federation.deployment.gateway.enrolment.admission import (
    MOST_BYTES,
    Asking,
    admit,
    check_open,
    leave,
)
from fedgrpo.federation.deployment.gateway.enrolment.book import (
    Book,
    Sites,
    departed,
    told_version,
)
from fedgrpo.federation.deployment.gateway.rates import Rate, Rates
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.federation.wire.versions import TOLD_VERSION
from fedgrpo.ground.errors import RunError

LOG = logging.getLogger(__name__)

ATTEMPTS = Rate(0.5, 20)
"""How often an address may try to join."""
VERSIONS = Rate(0.01, 5)
"""How often a site may say that it runs another version: each time is a write of the book."""
A_VERSION = re.compile(rb"[0-9A-Za-z.+!-]{1,40}")
"""What can be one."""
WAITS = 423
"""HTTP's ``locked``: of a key that the operator has yet to confirm."""

Given = ParamSpec("Given")
Made = TypeVar("Made")


class Enrolling:
    """What the gateway knows of sites that were invited.

    Parameters
    ----------
    book:
        Of the operator.
    """

    def __init__(self, book: Book) -> None:
        self._book, self._attempts, self._versions = book, Rates(ATTEMPTS), Rates(VERSIONS)

    def count(self, sender: str, now: float) -> None:
        """Count an attempt to join; raises RefusedError if there were too many."""
        self._attempts.take(sender, now)

    def sites(self) -> Sites:
        """What the book has at the moment; raises RefusedError if it cannot be read."""
        return _read(self._book.sites)

    async def answer(self, key: str, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """Let a key wait for the operator's confirmation; raises RefusedError if it may not.

        Parameters
        ----------
        key:
            Public key, PEM, which has signed the request.
        headers:
            Of the request.
        receive:
            Brings its body.
        """
        asking = await _asking(headers, receive)
        site = await asyncio.to_thread(_read, admit, self._book, asking, key, time.time())
        if site.waiting:
            told = {"code": "site-waits"}
            LOG.warning("%s has come, and waits for its confirmation", asking.site, extra=told)
        return _said(confirmed=not site.waiting, before=site.had_another_key)

    async def look(self, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """Say whether an invitation could be used; raises RefusedError if it could not."""
        asking = await _asking(headers, receive)
        _read(check_open, self._book, asking, time.time())
        return _said(site=asking.site)

    async def let_go(self, key: str, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """Let a site go whose key has signed the request; raises RefusedError if it is none that
        was invited.
        """
        await bodies.whole(receive, bodies.declared_size(headers, MOST_BYTES))
        name = await asyncio.to_thread(_read, leave, self._book, key)
        LOG.info("%s has left", name)
        return _said(site=name)

    async def hear_version(self, key: str, headers: Mapping[bytes, bytes]) -> None:
        """Keep what a site's node says that it runs, if that is news. Nothing is refused for it."""
        said, sites = headers.get(TOLD_VERSION.encode(), b""), self.sites()
        name = next((name for name, site in sites.items() if site.key == key), "")
        if not name or not A_VERSION.fullmatch(said):
            return
        version = said.decode("ascii")
        if sites[name].version == version:
            return
        with contextlib.suppress(RefusedError, RunError, OSError):
            self._versions.take(name, time.monotonic())
            await asyncio.to_thread(
                self._book.change, name, lambda site: told_version(site, key, version)
            )


def refuse_departed(key: str, sites: Sites) -> None:
    """Refuse a key that was revoked or replaced, from the next request on."""
    if departed(key, sites):
        raise RefusedError(
            401,
            "this node's key was revoked, or another machine has taken its place",
            cure="ask the operator for a new invitation, move node.key away, and join again",
        )


def refuse_waiting(key: str, sites: Sites, *, asked: bool) -> None:
    """Tell a key that has joined that the operator has yet to confirm it, or just has.

    Parameters
    ----------
    asked:
        Whether the SuperLink could be asked for its nodes. One that could not may know this key.
    """
    if asked and any(site.key == key for site in sites.values()):
        raise RefusedError(WAITS, "this site is being let in", cure="wait a second")
    if site := next((site for site in sites.values() if site.waiting == key), None):
        raise RefusedError(
            WAITS,
            f"this site has joined and waits for the operator: its key is {site.fingerprint}",
            cure="read him this fingerprint over the telephone",
        )


async def _asking(headers: Mapping[bytes, bytes], receive: Receive) -> Asking:
    return Asking.read(await bodies.whole(receive, bodies.declared_size(headers, MOST_BYTES)))


def _said(**what: object) -> Response:
    return Response(json.dumps(what), media_type="application/json")


def _read(work: Callable[Given, Made], *given: Given.args, **named: Given.kwargs) -> Made:
    """Do what reads the book; raises RefusedError if it cannot be read or written."""
    try:
        return work(*given, **named)
    except (RunError, OSError):
        raise RefusedError(
            503,
            "the server cannot read its book of sites",
            cure="ask the operator to look at its log",
        ) from None
