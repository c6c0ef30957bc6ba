"""The way to the server: its name, its port, its certificate, itself, and proxies in between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps

from fedgrpo.federation.deployment.doctor.finding import Finding, Findings, fine, trouble, waits
from fedgrpo.federation.deployment.doctor.line import NAME, PORT, PROXY, SERVER, TLS, Line
from fedgrpo.federation.deployment.doctor.registry import Look, check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings

SOON_DAYS = 30
"""Before the end of a certificate."""


def step(number: int, name: str) -> Callable[[Callable[[Line], Finding]], Look]:
    """Make a check of a step of the way. What is decorated says what was found of a step that was
    taken from here; one that failed, waits for another or is left to a proxy tells so itself.
    """

    def add(taken: Callable[[Line], Finding]) -> Look:
        @check(number, name)
        @wraps(taken)
        def look(here: Surroundings) -> Findings:
            line = here.line
            broken = line.broken[0] if line and line.broken else None
            if line is None:
                yield waits("check 8 says why nobody knows the server")
            elif line.broken and broken == number:
                yield line.broken[1]
            elif broken == PROXY or (broken or PROXY) < number:
                yield waits(f"check {broken} comes first")
            elif line.proxy[0] and number != SERVER:
                yield fine(f"left to the proxy {line.proxy[1]}")
            else:
                yield taken(line)

        return look

    return add


@step(NAME, "server's name")
def name(line: Line) -> Finding:
    """Whether the server's name has an address."""
    return fine(f"{line.host} is {', '.join(line.addresses)}")


@step(PORT, "server's port")
def port(line: Line) -> Finding:
    """Whether something listens there, and lets this machine connect."""
    return fine(f"{line.address}, port {line.port}, can be reached")


@step(TLS, "server's certificate")
def certificate(line: Line) -> Finding:
    """Authority, name, validity and fingerprint."""
    if not (shown := line.certificate):
        # A server that speaks without TLS is the next check's.
        return waits(f"check {SERVER} comes first")
    when, days = f"{shown.ends:%Y-%m-%d}", (shown.ends - datetime.now(UTC)).days
    if days < SOON_DAYS:
        return trouble("certificate-ends", days=days, when=when)
    names = ", ".join(shown.names)
    return fine(f"of {names}, issued by {shown.issuer}, until {when}, SHA-256 {shown.digest}")


@step(SERVER, "server")
def server(line: Line) -> Finding:
    """Whether it is one of fedgrpo, and says so over TLS."""
    assert line.hello  # A way that is not broken leads there.
    return fine(f"fedgrpo {line.hello.fedgrpo}, protocol {line.hello.protocol}")


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
