"""The door for sites that come with an invitation."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive

from fedgrpo.federation.deployment.flower_internals.control import is_node_key
from fedgrpo.federation.deployment.gateway import bodies
from fedgrpo.federation.deployment.gateway.enrolment.admission import (
    MOST_BYTES,
    Asking,
    NotAdmittedError,
    admit,
    check_open,
)
from fedgrpo.federation.deployment.gateway.enrolment.book import Book, Sites, departed, revoked
from fedgrpo.federation.deployment.gateway.rates import Rate, Rates
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.ground.errors import RunError

LOG = logging.getLogger(__name__)

ATTEMPTS = Rate(0.5, 20)
"""How often an address may try to join."""
WAITS = 423
"""HTTP's ``locked``: of a key that the operator has yet to confirm."""


class Enrolling:
    """What the gateway knows of sites that were invited.

    Parameters
    ----------
    book:
        Of the operator.
    """

    def __init__(self, book: Book) -> None:
        self._book, self._attempts = book, Rates(ATTEMPTS)

    def count(self, sender: str, now: float) -> None:
        """Count an attempt to join; raises RefusedError if there were too many."""
        self._attempts.take(sender, now)

    async def answer(
        self, key: bytes, headers: Mapping[bytes, bytes], receive: Receive
    ) -> Response:
        """Let a key wait for the operator's confirmation; raises RefusedError if it may not.

        Parameters
        ----------
        key:
            Public key, which has signed the request.
        headers:
            Of the request.
        receive:
            Brings its body.
        """
        body = await bodies.whole(receive, bodies.declared_size(headers, MOST_BYTES))
        if not is_node_key(key):
            raise RefusedError(
                400, "this key is of a kind that Flower does not take", cure="use fedgrpo join"
            )
        try:
            asking = Asking.read(body)
            site = await asyncio.to_thread(
                admit, self._book, asking, key.decode("ascii"), time.time()
            )
        except NotAdmittedError as error:
            raise RefusedError(error.status, error.problem, cure=error.cure) from None
        except (RunError, OSError):
            raise _UNREADABLE from None
        if site.waiting:
            told = {"code": "site-waits"}
            LOG.warning("%s has come, and waits for its confirmation", asking.site, extra=told)
        said = {"confirmed": not site.waiting, "before": site.had_another_key}
        return Response(json.dumps(said), media_type="application/json")

    async def look(self, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """Say whether an invitation could be used; raises RefusedError if it could not."""
        body = await bodies.whole(receive, bodies.declared_size(headers, MOST_BYTES))
        try:
            asking = Asking.read(body)
            await asyncio.to_thread(check_open, self._book, asking, time.time())
        except NotAdmittedError as error:
            raise RefusedError(error.status, error.problem, cure=error.cure) from None
        except (RunError, OSError):
            raise _UNREADABLE from None
        return Response(json.dumps({"site": asking.site}), media_type="application/json")

    async def let_go(
        self, key: bytes, headers: Mapping[bytes, bytes], receive: Receive
    ) -> Response:
        """Let a site go whose key has signed the request; raises RefusedError if it is none that
        was invited.
        """
        await bodies.whole(receive, bodies.declared_size(headers, MOST_BYTES))
        text = key.decode("latin-1")
        name = next((name for name, site in self._sites().items() if site.key == text), "")
        if not name:
            raise RefusedError(
                404,
                "this node was registered by hand, and its operator has to do it",
                cure="ask him to unregister it",
            )
        try:
            await asyncio.to_thread(self._book.change, name, lambda site: revoked(site, name))
        except (RunError, OSError):
            raise _UNREADABLE from None
        LOG.info("%s has left", name)
        return Response(json.dumps({"site": name}), media_type="application/json")

    def refuse_departed(self, key: bytes) -> None:
        """Refuse a key that was revoked or replaced, from the next request on."""
        if departed(key.decode("latin-1"), self._sites()):
            raise RefusedError(
                401,
                "this node's key was revoked, or another machine has taken its place",
                cure="ask the operator for a new invitation, move node.key away, and join again",
            )

    def refuse_waiting(self, key: bytes) -> None:
        """Tell a key that has joined that the operator has yet to confirm it, or just has."""
        text = key.decode("latin-1")
        if any(site.key == text for site in self._sites().values()):
            raise RefusedError(WAITS, "this site is being let in", cure="wait a second")
        if site := next((s for s in self._sites().values() if s.waiting == text), None):
            raise RefusedError(
                WAITS,
                f"this site has joined and waits for the operator: its key is {site.fingerprint}",
                cure="read him this fingerprint over the telephone",
            )

    def _sites(self) -> Sites:
        try:
            return self._book.sites()
        except RunError:
            raise _UNREADABLE from None


_UNREADABLE = RefusedError(
    503, "the server cannot read its book of sites", cure="ask the operator to look at its log"
)
