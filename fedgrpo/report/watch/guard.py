"""Who may look: who has the password, by a name of this machine, and with nothing but his eyes.

Adversaries. Other users of the machine, who reach a port on loopback as its owner does: without the
password, which lies in a file of mode 0600, they get nothing. A page in the owner's browser, which
may ask for any address: it has no password, and cannot read an answer; one whose name was bound to
this address by DNS comes under a name that is refused, before the password is asked for. A site or
a run, whose words are shown: they are escaped, and no script runs whatever they are.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedgrpo.report.watch.place import LOOPBACK

METHODS = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Of every answer."""
_ASK = {"www-authenticate": 'Basic realm="fedgrpo: any name, and the password", charset="UTF-8"'}


class Guard:
    """An ASGI application that is looked at.

    Parameters
    ----------
    app:
        What is guarded.
    password:
        As HTTP's Basic password, under any name, or as a bearer token.
    hosts:
        Names and addresses by which it may be asked for, IPv6 in brackets.
    """

    def __init__(self, app: ASGIApp, password: str, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, LOOPBACK | {host.lower() for host in hosts}
        self._password = password.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it without a look at its body."""
        if scope["type"] != "http":
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] not in METHODS:
            return PlainTextResponse("there is nothing here but to look at\n", 405)
        if not self._is_meant(_sole(scope, b"host")):
            return PlainTextResponse("this is not a name of this machine\n", 421)
        if not self._opens(_sole(scope, b"authorization")):
            return PlainTextResponse("the password is in a file of mode 0600\n", 401, _ASK)
        return None

    def _is_meant(self, host: bytes) -> bool:
        """Whether it was asked for by one of its names; a tunnel may have another port."""
        name, colon, port = host.decode("latin-1").lower().rpartition(":")
        if colon and port.isascii() and port.isdecimal():
            return name in self._hosts
        return host.decode("latin-1").lower() in self._hosts

    def _opens(self, shown: bytes) -> bool:
        kind, _, word = shown.partition(b" ")
        if kind.lower() == b"bearer":
            return secrets.compare_digest(word, self._password)
        if kind.lower() != b"basic":
            return False
        try:
            _, colon, password = base64.b64decode(word, validate=True).partition(b":")
        except binascii.Error:
            return False
        return bool(colon) and secrets.compare_digest(password, self._password)


def _sole(scope: Scope, name: bytes) -> bytes:
    """A header that is there once; else nothing."""
    found = [value for each, value in scope["headers"] if each == name]
    return bytes(found[0]) if len(found) == 1 else b""
