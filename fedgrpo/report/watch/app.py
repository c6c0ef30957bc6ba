"""The web application: a page, the same as JSON, as metrics, and a picture."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fedgrpo.ground.errors import FedGRPOError
from fedgrpo.report.watch.guard import Guard
from fedgrpo.report.watch.metrics import Kind, Sample, exposition
from fedgrpo.report.watch.page import Page, render, style

Seen = TypeVar("Seen")
FRESH_S = 2.0
"""For so long what was seen is shown again: whoever reloads costs nothing."""


@dataclass(frozen=True)
class Watched(Generic[Seen]):
    """Something to look at.

    Attributes
    ----------
    look:
        Says what is seen of it now; may take seconds, and raise FedGRPOError.
    page, as_json, samples:
        The same for people and for programs.
    kinds:
        Of the samples.
    picture:
        A PNG; None where there is none.
    """

    look: Callable[[], Seen]
    page: Callable[[Seen], Page]
    as_json: Callable[[Seen], Mapping[str, Any]]
    samples: Callable[[Seen], Iterable[Sample]]
    kinds: Sequence[Kind]
    picture: Callable[[], bytes | None] = lambda: None


def application(watched: Watched[Any], password: str, hosts: frozenset[str]) -> ASGIApp:
    """Make the application; see :class:`.guard.Guard`."""
    lately = Lately(watched.look)

    def page(_: Request) -> Response:
        return HTMLResponse(render(watched.page(lately.seen())))

    def as_json(_: Request) -> Response:
        said = json.dumps(watched.as_json(lately.seen()), indent=1)
        return Response(said, media_type="application/json")

    def metrics(_: Request) -> Response:
        told = exposition(watched.kinds, watched.samples(lately.seen()))
        return Response(told, headers={"content-type": CONTENT_TYPE_LATEST})

    def picture(_: Request) -> Response:
        found = watched.picture()
        return Response(found, media_type="image/png") if found else PlainTextResponse("none", 404)

    def sheet(_: Request) -> Response:
        return Response(style(), media_type="text/css")

    places = {
        "/": page,
        "/status.json": as_json,
        "/metrics": metrics,
        "/picture.png": picture,
        "/style.css": sheet,
    }
    routes = [Route(path, answer) for path, answer in places.items()]
    app = Starlette(routes=routes, exception_handlers={FedGRPOError: _unseen})
    return Guard(app, password, hosts)


class Lately(Generic[Seen]):
    """What was seen a moment ago, or now: one look at a time."""

    def __init__(self, look: Callable[[], Seen], fresh_s: float = FRESH_S) -> None:
        self._look, self._fresh_s = look, fresh_s
        self._lock = threading.Lock()
        self._seen: tuple[float, Seen] | None = None

    def seen(self) -> Seen:
        """See; raises what the look raises."""
        with self._lock:
            if self._seen is None or time.monotonic() - self._seen[0] > self._fresh_s:
                seen = self._look()
                self._seen = time.monotonic(), seen
            return self._seen[1]


def _unseen(_: Request, error: Exception) -> Response:
    """Nothing can be seen at the moment, and why."""
    return PlainTextResponse(f"{error}\n", 503)
