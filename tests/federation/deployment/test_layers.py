"""A request goes through the layers that are for it, and around the others."""

from __future__ import annotations

import asyncio

import pytest
from flwr.superlink.main import _get_middleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from fedgrpo.federation.deployment.flower_internals.layers import (
    CONTROL,
    FLEET,
    ONLY_FOR,
    straighten,
)


def test_the_layers_are_those_of_the_pinned_flower():
    found = {getattr(layer.cls, "__name__", "") for layer in _get_middleware()}
    assert found == ONLY_FOR.keys() | {"BaseHTTPMiddleware", "ProtobufTranslationMiddleware"}


class ControlAuthenticationMiddleware(BaseHTTPMiddleware):
    """Of the name of Flower's: refuses whatever comes to it."""

    async def dispatch(self, request, call_next):
        return PlainTextResponse("refused", 403)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{CONTROL}list", 403),
        ("/v1/%63ontrol/list", 403),
        (f"{FLEET}pull", 200),
        ("/v1/controls", 200),
    ],
)
def test_what_a_layer_guards_is_guarded_still_and_no_more(path, status):
    async def answer(request):
        await asyncio.sleep(0)
        return PlainTextResponse("passed")

    app = Starlette(
        routes=[Route("/{rest:path}", answer)],
        middleware=[Middleware(ControlAuthenticationMiddleware)],
    )
    assert straighten(app) == 1
    assert TestClient(app).get(path).status_code == status
