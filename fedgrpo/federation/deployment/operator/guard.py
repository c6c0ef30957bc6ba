"""A secret in front of everything that a SuperLink serves on its own machine.

Adversary: other users of that machine. Flower asks nobody who submits runs or registers nodes, and
whoever may do that runs an app of his own; so a request without the secret, which lies in a file of
mode 0600, gets nothing, whatever it asks for.
"""

from __future__ import annotations

import secrets

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
    """An ASGI application behind a bearer secret.

    Parameters
    ----------
    app:
        What is guarded.
    bearer:
        The secret.
    """

    def __init__(self, app: ASGIApp, bearer: str) -> None:
        self._app = app
        self._expected = f"Bearer {bearer}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer 401 before its body is read."""
        if scope["type"] == "lifespan" or self._opens(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse("unauthorised", 401)(scope, receive, send)

    def _opens(self, scope: Scope) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(shown) == 1 and secrets.compare_digest(shown[0], self._expected)
