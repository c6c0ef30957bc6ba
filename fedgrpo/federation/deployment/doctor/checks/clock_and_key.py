"""The clock, and whether the server knows the node's key."""

from __future__ import annotations

import stat
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
from fedgrpo.federation.deployment.doctor.line import greet_as
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.deployment.flower_internals import AGE_S
from fedgrpo.federation.deployment.site.greeting import credentials, read_key
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.ground.errors import RunError
from fedgrpo.site.node_folder import running

FAST_S, SLOW_S = -AGE_S[0] - 1, AGE_S[1] - 5
"""What is left of Flower's limits for a request's way."""
DRIFT_S = 1.5
"""A clock that is synchronised is nearer."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


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
    if file.stat().st_mode & OTHERS:
        yield trouble("key-mode", file=file)
    yield from _known(here, site, private)


def _known(here: Surroundings, site: SiteFile, private: ec.EllipticCurvePrivateKey) -> Findings:
    """What the server says to it."""
    if not here.line or not here.line.hello:
        yield waits("the server does not say whether it knows the key while it is not reached")
        return
    try:
        answer = greet_as(here.line, site.ca, credentials(private))
        heard = answer.json()
        if answer.status_code != httpx.codes.OK:
            yield _refused(site, answer.status_code, str(heard["detail"]), str(heard["extra"]))
            return
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        yield waits(f"the server was reached and is gone ({type(error).__name__})")
        return
    folder, believed = here.folder, float(heard.get("believed_s", 0.0))
    if believed > 0 and not (folder and running(folder)):
        yield trouble("node-believed", seconds=f"{believed:.0f}")
    else:
        yield fine("the server knows it")


def _refused(site: SiteFile, status: int, detail: str, cure: str) -> Finding:
    if status == httpx.codes.UNAUTHORIZED and "registered" in detail:
        return trouble("key-unregistered", why=detail, file=site.key)
    return trouble("key-refused", why=detail, cure=cure or "ask the operator")
