"""Layers of a SuperLink that a request need not go through.

Flower puts nine layers around each request, of which most look at its path and let it pass; that
is half of what a request costs. Each is gone around here by requests whose path it lets pass.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

LOG = logging.getLogger(__name__)

CONTROL, FLEET, RUNTIME = "/v1/control/", "/v1/fleet/", "/v1/runtime/"
ONLY_FOR = {
    "ControlSensitiveResponseMiddleware": CONTROL,
    "ControlAuthenticationMiddleware": CONTROL,
    "ControlLicenseMiddleware": CONTROL,
    "ControlEventLogMiddleware": CONTROL,
    "NodeAuthMiddleware": FLEET,
    "FleetEventLogMiddleware": FLEET,
    "RuntimeTracingMiddleware": RUNTIME,
}
"""What the layers of Flower 1.41 look for, by their names. One of another name is for all."""


class Only:
    """A layer for requests under one path; others go straight to what it is around."""

    def __init__(self, app: ASGIApp, layer: Middleware, prefix: str) -> None:
        self._straight, self._prefix = app, prefix
        self._around: ASGIApp = layer.cls(app, *layer.args, **layer.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        meant = scope["type"] == "http" and scope["path"].startswith(self._prefix)
        await (self._around if meant else self._straight)(scope, receive, send)


def straighten(app: Starlette) -> int:
    """Have requests go around layers that are not for them; returns how many layers there are."""
    names = [getattr(layer.cls, "__name__", "") for layer in app.user_middleware]
    if missing := ONLY_FOR.keys() - set(names):
        LOG.info("this Flower has no layers %s", ", ".join(sorted(missing)))
    app.user_middleware = [
        Middleware(Only, layer=layer, prefix=ONLY_FOR[name]) if name in ONLY_FOR else layer
        for name, layer in zip(names, app.user_middleware, strict=True)
    ]
    return len(ONLY_FOR.keys() & set(names))
