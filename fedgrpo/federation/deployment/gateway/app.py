"""What becomes of a request from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

import httpx
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fedgrpo.federation.deployment.flower_internals.control import AGE_S, read_pushed
from fedgrpo.federation.deployment.gateway import bodies, credentials
from fedgrpo.federation.deployment.gateway.door import neighbourhood
from fedgrpo.federation.deployment.gateway.enrolment.book import Book, Sites
from fedgrpo.federation.deployment.gateway.enrolment.joining import (
    WAITS,
    Enrolling,
    refuse_departed,
    refuse_waiting,
)
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.paths import FLEET, HELLO, INVITED, JOIN, LEAVE, PUSH
from fedgrpo.federation.deployment.gateway.rates import InFlight, Once, Rate, Rates
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.federation.deployment.gateway.roster import Roster
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION

LOG = logging.getLogger(__name__)

STRANGER, NODE = Rate(20, 200), Rate(300, 3000)
"""How often an address may ask without a valid key, and a node. Nodes behind one address share the
former in their first requests only: what is found valid is not counted there."""
BYTES = Rate(1 << 24, 1 << 32)
"""How many bytes a node may send: the SuperLink keeps them on its disk until a round is over, and
the server app reads a whole answer into memory."""
AT_ONCE = 8
"""Requests of a node at one time. Flower's own sends two objects, a heartbeat and a question."""
TOLD = Rate(1, 100)
"""How many refusals of an address the log tells of: it may have as many as it likes."""
READ_S = 120.0
"""Longest that a node may take to read a piece of an answer."""
PASSED_IN = (
    credentials.KEY,
    credentials.TIME,
    credentials.SIGNATURE,
    b"flwr-package-name",
    b"flwr-package-version",
    b"flwr-component-name",
)
PASSED_OUT = ("content-type", "content-length", "flwr-version-incompatibility-message")
"""Headers that are passed on, each once. Nothing else of a request's head is."""

Headers = Mapping[bytes, bytes]


class Gateway:
    """The ASGI application that stands between the network and a SuperLink.

    Parameters
    ----------
    inner:
        The SuperLink.
    book:
        Of sites that were invited.
    """

    def __init__(self, inner: Inner, book: Book) -> None:
        self._inner, self._enrolling = inner, Enrolling(book)
        self._roster = Roster(inner.nodes)
        self._strangers, self._nodes, self._bytes = Rates(STRANGER), Rates(NODE), Rates(BYTES)
        self._told = Rates(TOLD)
        self._under_way = InFlight(AT_ONCE)
        self._once = Once(AGE_S[1] - AGE_S[0])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        started = _Started(send)
        try:
            await self._answer(scope, receive, started)
        except RefusedError as refused:
            if started.begun:
                raise
            self._tell(_address(scope), refused)
            await refused.response()(scope, receive, started)

    def _tell(self, sender: str, refused: RefusedError) -> None:
        """Tell the operator's log; who waits asks every few seconds, and is not told of."""
        with contextlib.suppress(RefusedError):
            if refused.status != WAITS:
                self._told.take(sender, time.monotonic())
                LOG.info("refused %d %s: %s", refused.status, sender, refused.problem)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Whatever is asked for besides a path is as unknown as another path.
        path = scope["raw_path"] if not scope["query_string"] else b""
        if path == HELLO and scope["method"] == "GET":
            await (await self._hello(scope))(scope, receive, send)
        elif path == INVITED and scope["method"] == "POST":
            self._enrolling.count(_address(scope), time.monotonic())
            answer = await self._enrolling.look(_headers(scope), receive)
            await answer(scope, receive, send)
        elif path == JOIN and scope["method"] == "POST":
            await self._join(scope, receive, send)
        elif path == LEAVE and scope["method"] == "POST":
            headers = _headers(scope)
            await self._node(scope, headers)
            answer = await self._enrolling.let_go(credentials.shown(headers).text, headers, receive)
            await answer(scope, receive, send)
        elif path in FLEET and scope["method"] == "POST":
            await self._fleet(path, scope, receive, send)
        else:
            raise RefusedError(404, "not found")

    async def _hello(self, scope: Scope) -> Response:
        """Version and clock; a node hears besides for how long it is still taken to be there."""
        headers, heard = _headers(scope), {}
        if credentials.KEY in headers:
            self._roster.doubt()
            await self._node(scope, headers)
            shown = credentials.shown(headers)
            await self._enrolling.hear_version(shown.text, headers)
            heard = {"believed_s": self._roster.believed_s(shown.key, time.time())}
        said = {"time": time.time(), "fedgrpo": VERSION, "protocol": PROTOCOL, **heard}
        return Response(json.dumps(said), media_type="application/json")

    async def _join(self, scope: Scope, receive: Receive, send: Send) -> None:
        now, headers = time.monotonic(), _headers(scope)
        self._enrolling.count(_address(scope), now)
        shown = credentials.shown(headers)
        credentials.check(shown, datetime.now(UTC))
        self._once.show(shown.once, now)
        answer = await self._enrolling.answer(shown.text, headers, receive)
        await answer(scope, receive, send)

    async def _fleet(self, path: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        node = await self._node(scope, headers)
        with self._under_way.one(node):
            await self._forward(path, headers, node, receive, send)

    async def _forward(
        self, path: bytes, headers: Headers, node: int, receive: Receive, send: Send
    ) -> None:
        size = bodies.declared_size(headers, FLEET[path])
        self._bytes.take(node, time.monotonic(), size, "bytes")
        body: bytes | AsyncIterator[bytes] = bodies.pieces(receive, size)
        if path == PUSH:
            body = _as_itself(await bodies.whole(receive, size), node)
            size = len(body)
        passed = {
            name.decode(): headers[name].decode("latin-1") for name in PASSED_IN if name in headers
        }
        async with self._inner.asked(path, passed, body, size) as answer:
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                self._roster.doubt()
            await _pass_on(answer, send)

    async def _node(self, scope: Scope, headers: Headers) -> int:
        """Id of the node that asks; raises RefusedError if it is none that may."""
        now = time.monotonic()
        try:
            shown, sites = credentials.shown(headers), self._enrolling.sites()
            refuse_departed(shown.text, sites)
            node = await self._known(shown, sites)
            credentials.check(shown, datetime.now(UTC))
            self._once.show(shown.once, now)
        except RefusedError:
            self._strangers.take(_address(scope), now)
            raise
        self._nodes.take(node, now)
        return node

    async def _known(self, shown: credentials.Credentials, sites: Sites) -> int:
        """Id of a node by its key; of one that joined and waits, the refusal says so."""
        try:
            return await self._roster.node(shown.key)
        except RefusedError as unknown:
            asked = unknown.status == httpx.codes.UNAUTHORIZED
            try:
                credentials.check(shown, datetime.now(UTC))
            except RefusedError as wrong:
                raise (wrong if asked else unknown) from None
            refuse_waiting(shown.text, sites, asked=asked)
            raise


class _Started:
    """Sends, and remembers whether an answer has begun. A reader who takes none is left."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        async with asyncio.timeout(READ_S):
            await self._send(message)


def _headers(scope: Scope) -> Headers:
    """A request's headers; raises RefusedError if one that counts is there twice."""
    names = [name for name, _ in scope["headers"]]
    for name in (*PASSED_IN, b"content-length", b"transfer-encoding"):
        if names.count(name) > 1:
            raise RefusedError(400, f"header {name.decode()} is there twice")
    return dict(scope["headers"])


def _address(scope: Scope) -> str:
    return neighbourhood(str(scope["client"][0])) if scope.get("client") else ""


def _as_itself(body: bytes, node: int) -> bytes:
    """Pushed messages that come from the node which sends them; raises RefusedError for others.

    Flower compares the node with its key, and not with the source that each message names.
    """
    try:
        pushed = read_pushed(body)
    except ValueError:
        raise RefusedError(400, "these are no messages") from None
    if pushed.claimed != {node}:
        raise RefusedError(401, "a node may send messages in its own name only")
    if not pushed.single:
        raise RefusedError(400, "one message is pushed at a time, with the list of its objects")
    return pushed.body


async def _pass_on(answer: httpx.Response, send: Send) -> None:
    """Stream an answer to the outside, in pieces."""
    headers = [
        (name.encode(), answer.headers[name].encode("latin-1"))
        for name in PASSED_OUT
        if name in answer.headers
    ]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    async for piece in answer.aiter_raw():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
