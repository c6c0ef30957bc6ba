"""Versions, and the invitation or the site's own file."""

from __future__ import annotations

import sys
from importlib.metadata import requires, version

from packaging.requirements import Requirement

from fedgrpo.federation.deployment.doctor.finding import Findings, fine, said, trouble
from fedgrpo.federation.deployment.doctor.line import RefusedError, ask
from fedgrpo.federation.deployment.doctor.registry import check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.deployment.invitation.invitation import Invitation, when
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION
from fedgrpo.ground.errors import FedGRPOError, InvitationError

PYTHON = (3, 11, 1)
"""The oldest that is served."""
DAY_S = 86_400
_CLOSED = (403, 409, 410)
"""What a server answers to an invitation that is not known, was used, or has ended."""


@check(1, "versions")
def versions(here: Surroundings) -> Findings:
    """Python, fedgrpo, protocol and Flower against what the federation runs."""
    python, flower = ".".join(map(str, sys.version_info[:3])), version("flwr")
    if sys.version_info[:3] < PYTHON:
        yield trouble("python-version", found=python, needed=".".join(map(str, PYTHON)))
    needed = next(r for r in map(Requirement, requires("fedgrpo") or ()) if r.name == "flwr")
    if flower not in needed.specifier:
        yield trouble("flower-version", found=flower, needed=needed.specifier)
    theirs = _theirs(here)
    own = VERSION, PROTOCOL
    if theirs and theirs not in (own, (VERSION, None)):
        what = theirs[0] if theirs[1] is None else f"{theirs[0]}, protocol {theirs[1]}"
        yield trouble("fedgrpo-version", found=VERSION, protocol=PROTOCOL, theirs=what)
    else:
        same = "as the federation" if theirs else "the federation's are not known yet"
        yield fine(f"fedgrpo {VERSION}, {same}; Python {python}, Flower {flower}")


def _theirs(here: Surroundings) -> tuple[str, int | None] | None:
    """Version and protocol of the server or, if that is silent, of the invitation."""
    if here.line and here.line.hello:
        return here.line.hello.fedgrpo, here.line.hello.protocol
    return (here.given.fedgrpo, None) if isinstance(here.given, Invitation) else None


@check(8, "invitation")
def invitation(here: Surroundings) -> Findings:
    """An invitation that is whole and can still be used; or the site's file, once it has joined."""
    given = here.given
    if isinstance(given, FedGRPOError):
        invited = isinstance(given, InvitationError)
        yield said("invitation-invalid" if invited else "site-file-invalid", given)
    elif isinstance(given, Invitation):
        yield from _invited(here, given)
    else:
        yield fine("this site has joined: its own file is used")
    if here.server is None and not isinstance(given, FedGRPOError):
        yield trouble("server-unnamed", server=given.server)


def _invited(here: Surroundings, given: Invitation) -> Findings:
    """Whether it is in time and, where the server can be asked, unused."""
    ends = when(given.expires)
    if here.clock() >= given.expires:
        yield trouble("invitation-expired", when=ends, site=given.site)
        return
    if refused := _not_open(here, given):
        yield trouble("invitation-used", why=refused)
    elif here.clock() >= given.expires - DAY_S:
        yield trouble("invitation-ends", when=ends)
    else:
        yield fine(f"of {given.site}, until {ends}; its fingerprint is {given.fingerprint}")


def _not_open(here: Surroundings, given: Invitation) -> str:
    """Why the server would not let anybody join with it; empty if it would, or cannot be asked."""
    if not here.line or not here.line.hello:
        return ""
    try:
        ask(here.line, given.ca, {}, "/invited", given.question)
    except RefusedError as refused:
        return refused.problem if refused.status in _CLOSED else ""
    return ""
