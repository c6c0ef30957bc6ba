"""The clock, and whether the server knows the node's key."""

from __future__ import annotations

from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from fedgrpo.federation.deployment.doctor.finding import (
    Finding,
    Findings,
    fine,
    said,
    trouble,
    waits,
)
from fedgrpo.federation.deployment.doctor.line import RefusedError, ask
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.deployment.site.greeting import (
    MOST_FAST_S,
    MOST_SLOW_S,
    credentials,
    read_key,
)
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import is_open_to_others
from fedgrpo.site.node_folder import running

FAST_S, SLOW_S = MOST_FAST_S - 1, MOST_SLOW_S - 5
"""What is left when a request has had some time for its way."""
DRIFT_S = 1.5
"""A clock that is synchronised is nearer."""


@check(6, "clock")
def clock(here: Surroundings) -> Findings:
    """The machine's clock against the server's: a node signs the time with each request."""
    hello = here.line.hello if here.line else None
    if not hello:
        yield waits("the server's clock is not known while the server is not reached")
        return
    drift, seconds = hello.drift_s, f"{abs(hello.drift_s):.1f}"
    # What may be the answer's way is not the clock's fault.
    if drift - hello.doubt_s > FAST_S:
        yield trouble("clock-fast", seconds=seconds, most=f"{FAST_S:g}")
    elif -drift - hello.doubt_s > SLOW_S:
        yield trouble("clock-slow", seconds=seconds, most=f"{SLOW_S:g}")
    elif abs(drift) - hello.doubt_s > DRIFT_S:
        yield trouble("clock-drifts", seconds=seconds, way="fast" if drift > 0 else "slow")
    else:
        yield fine(f"within {abs(drift) + hello.doubt_s:.1f} s of the server's")


@check(7, "node's key")
def key(here: Surroundings) -> Findings:
    """Its kind and mode, and whether the server knows it and believes it elsewhere."""
    if not (site := here.site):
        yield fine("'fedgrpo join' makes it, on this machine")
        return
    file = Path(site.key)
    try:
        private = read_key(file)
    except RunError as error:
        yield said("key-unusable", error)
        return
    if is_open_to_others(file):
        yield trouble("key-mode", file=file)
    yield from _known(here, site, private)


def _known(here: Surroundings, site: SiteFile, private: ec.EllipticCurvePrivateKey) -> Findings:
    """What the server says to it."""
    if not here.line or not here.line.hello:
        yield waits("the server does not say whether it knows the key while it is not reached")
        return
    try:
        heard = ask(here.line, site.ca, credentials(private))
    except RefusedError as refused:
        yield _refused(site, refused)
        return
    folder, believed = here.folder, heard.get("believed_s", 0.0)
    alone = not (folder and running(folder))
    if isinstance(believed, float) and believed > 0 and alone:
        yield trouble("node-believed", seconds=f"{believed:.0f}")
    else:
        yield fine("the server knows it")


def _refused(site: SiteFile, refused: RefusedError) -> Finding:
    if refused.status == httpx.codes.LOCKED:
        return trouble("key-waits", why=refused.problem)
    if refused.status == httpx.codes.UNAUTHORIZED and "registered" in refused.problem:
        return trouble("key-unregistered", why=refused.problem, file=site.key)
    if not refused.status:
        return waits(f"the server: {refused.problem}")
    return trouble("key-refused", why=refused.problem, cure=refused.cure or "ask the operator")
