"""A request's body, within limits of size and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from starlette.types import Receive

from fedgrpo.federation.deployment.gateway.refused import RefusedError

START_S, SLOWEST = 30.0, 16_384
"""A body must be there after so many seconds, and one more for so many bytes."""


def declared_size(headers: Mapping[bytes, bytes], most: int) -> int:
    """Bytes that a request says it brings; raises RefusedError if it does not say, or too many."""
    said = headers.get(b"content-length", b"")
    if b"transfer-encoding" in headers or not (said.isdigit() and said.isascii()):
        raise RefusedError(411, "a request must say its size", cure="send a Content-Length")
    if len(said) > 18 or int(said) > most:
        raise RefusedError(
            413,
            f"{said[:18].decode()} bytes are more than the {most} that may be sent here",
            cure="fedgrpo's own nodes never send as many",
        )
    return int(said)


async def pieces(receive: Receive, size: int) -> AsyncIterator[bytes]:
    """Pass a body on as it comes; raises RefusedError if it is too slow or breaks off.

    Parameters
    ----------
    receive:
        The server's.
    size:
        Bytes that were declared.
    """
    deadline = time.monotonic() + START_S + size / SLOWEST
    left = size
    while left:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                event = await receive()
        except TimeoutError:
            raise RefusedError(408, "the request came too slowly", cure="try again") from None
        if event["type"] != "http.request":
            raise RefusedError(400, "the request broke off")
        piece = event.get("body", b"")[:left]
        left -= len(piece)
        if piece:
            yield piece
        if left and not event.get("more_body", False):
            raise RefusedError(400, "the request broke off")


async def whole(receive: Receive, size: int) -> bytes:
    """A body, all at once."""
    return b"".join([piece async for piece in pieces(receive, size)])
