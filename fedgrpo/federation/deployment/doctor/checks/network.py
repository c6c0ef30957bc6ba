"""The way to the server: its name, its port, its certificate, itself, and proxies in between."""

from __future__ import annotations

from datetime import UTC, datetime

from fedgrpo.federation.deployment.doctor.finding import Finding, Findings, fine, trouble, waits
from fedgrpo.federation.deployment.doctor.line import NAME, PORT, PROXY, SERVER, TLS, Line
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings

SOON_DAYS = 30
"""Before the end of a certificate."""


def step(here: Surroundings, number: int) -> Findings:
    """What is wrong with a step; nothing if it was taken."""
    if here.line is None:
        yield waits("check 8 says why nobody knows the server")
    elif here.line.broken:
        broken, finding = here.line.broken
        if broken == number:
            yield finding
        elif broken < number or broken == PROXY:
            yield waits(f"check {broken} comes first")


@check(NAME, "server's name")
def name(here: Surroundings) -> Findings:
    """Whether the server's name has an address."""
    wrong = list(step(here, NAME))
    yield from wrong
    if not wrong and (line := here.line):
        yield _left(line) or fine(f"{line.host} is {', '.join(line.addresses)}")


@check(PORT, "server's port")
def port(here: Surroundings) -> Findings:
    """Whether something listens there, and lets this machine connect."""
    wrong = list(step(here, PORT))
    yield from wrong
    if not wrong and (line := here.line):
        yield _left(line) or fine(f"{line.address}, port {line.port}, can be reached")


@check(TLS, "server's certificate")
def certificate(here: Surroundings) -> Findings:
    """Authority, name, validity and fingerprint."""
    wrong = list(step(here, TLS))
    yield from wrong
    if wrong or not (line := here.line):
        return
    if not (shown := line.certificate):
        # A server that speaks without TLS is the next check's.
        yield _left(line) or waits(f"check {SERVER} comes first")
        return
    when, days = f"{shown.ends:%Y-%m-%d}", (shown.ends - datetime.now(UTC)).days
    if days < SOON_DAYS:
        yield trouble("certificate-ends", days=days, when=when)
    else:
        names = ", ".join(shown.names)
        yield fine(f"of {names}, issued by {shown.issuer}, until {when}, SHA-256 {shown.digest}")


@check(SERVER, "server")
def server(here: Surroundings) -> Findings:
    """Whether it is one of fedgrpo, and says so over TLS."""
    wrong = list(step(here, SERVER))
    yield from wrong
    if not wrong and here.line and (hello := here.line.hello):
        yield fine(f"fedgrpo {hello.fedgrpo}, protocol {hello.protocol}")


@check(PROXY, "proxy")
def proxy(here: Surroundings) -> Findings:
    """Variables of the environment that would send what is for the server elsewhere."""
    if not (line := here.line):
        yield waits("check 8 says why nobody knows the server")
    elif line.broken and line.broken[0] == PROXY:
        yield line.broken[1]
    elif line.proxy[0]:
        variable, through = line.proxy
        yield trouble("proxy-catches", variable=variable, proxy=through, host=line.host)
    else:
        yield fine(f"none would catch {line.host}")


def _left(line: Line) -> Finding | None:
    """What is said of a step that a proxy takes."""
    return fine(f"left to the proxy {line.proxy[1]}") if line.proxy[0] else None
