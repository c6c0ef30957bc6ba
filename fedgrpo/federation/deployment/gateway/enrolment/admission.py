"""What becomes of a site that comes with an invitation: its key waits for the operator."""

from __future__ import annotations

import secrets

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgrpo.federation.deployment.gateway.enrolment.book import (
    Book,
    Enrolled,
    Sites,
    departed,
    hashed,
)
from fedgrpo.federation.deployment.invitation.invitation import when
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION
from fedgrpo.ground.errors import FedGRPOError

MOST_BYTES = 4096
"""Of what a site sends."""
_NEW = "ask the operator for a new invitation"


class NotAdmittedError(FedGRPOError, RuntimeError):
    """A server does not let a site join.

    Parameters
    ----------
    problem, cure:
        For the site's people.
    status:
        Of HTTP.
    """

    def __init__(self, problem: str, *, cure: str, status: int) -> None:
        super().__init__(problem, cure=cure)
        self.status = status


class Asking(BaseModel):
    """What a site sends to join, signed like a node's request by the key that is to take part.

    Attributes
    ----------
    site, token:
        Of the invitation.
    fedgrpo, protocol:
        Versions that are installed at the site.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    site: str = Field(max_length=64)
    token: str = Field(max_length=64)
    fedgrpo: str = Field(max_length=64)
    protocol: int

    @classmethod
    def read(cls, body: bytes) -> Asking:
        """Read what came; raises NotAdmittedError if it is something else."""
        try:
            return cls.model_validate_json(body)
        except ValidationError:
            raise NotAdmittedError(
                "this is no invitation that a server could read", cure=_NEW, status=400
            ) from None


def admit(book: Book, asking: Asking, key: str, now: float) -> Enrolled:
    """Let a key wait for the operator's confirmation. The same key may come again.

    Parameters
    ----------
    book:
        Of the server.
    asking:
        What the site has sent.
    key:
        Public key that has signed it, PEM.
    now:
        Unix time, in seconds.

    Raises
    ------
    NotAdmittedError
        If the invitation is not known here, was used by another key, or has expired; or if key or
        version cannot take part.
    """
    _check_version(asking)
    _check(book.sites(), asking, key, now)

    def waiting(before: Enrolled | None) -> Enrolled:
        sites = book.sites() if before is None else {**book.sites(), asking.site: before}
        site = _check(sites, asking, key, now)
        known = {"used_by": key, "version": asking.fedgrpo}
        return site.model_copy(update=known if site.key == key else {**known, "waiting": key})

    return book.change(asking.site, waiting)


def check_open(book: Book, asking: Asking, now: float) -> None:
    """Say whether an invitation could be used; it stays as it is. Raises NotAdmittedError.

    Parameters
    ----------
    book:
        Of the server.
    asking:
        Its site and token.
    now:
        Unix time, in seconds.
    """
    site = _invited(book.sites(), asking)
    if site.used_by:
        raise NotAdmittedError("this invitation was used", cure=_NEW, status=409)
    _check_time(site, now)


def _check_version(asking: Asking) -> None:
    if (asking.fedgrpo, asking.protocol) != (VERSION, PROTOCOL):
        raise NotAdmittedError(
            f"the server runs fedgrpo {VERSION}, protocol {PROTOCOL}; this site "
            f"{asking.fedgrpo}, protocol {asking.protocol}",
            cure="install the same version on both sides",
            status=409,
        )


def _invited(sites: Sites, asking: Asking) -> Enrolled:
    site = sites.get(asking.site)
    # The same words for a name and for a token: nobody is told who was invited.
    if not site or not site.token or not secrets.compare_digest(site.token, hashed(asking.token)):
        raise NotAdmittedError(
            "this invitation is not known here: it is of another federation, or was replaced or "
            "revoked",
            cure=_NEW,
            status=403,
        )
    return site


def _check(sites: Sites, asking: Asking, key: str, now: float) -> Enrolled:
    site = _invited(sites, asking)
    if departed(key, sites):
        raise NotAdmittedError(
            "this site's key was revoked, and a key that was revoked does not come back",
            cure="move node.key away, and join again: a new key is made",
            status=403,
        )
    if any(key in (other.key, other.waiting) for name, other in sites.items() if other != site):
        raise NotAdmittedError(
            "this key is that of another site",
            cure="join from a folder of its own: --directory FOLDER",
            status=409,
        )
    if site.used_by and site.used_by != key:
        raise NotAdmittedError(
            "this invitation was used before, by another machine",
            cure=f"{_NEW}; and tell him if it was not you who used it",
            status=409,
        )
    if not site.used_by:
        _check_time(site, now)
    return site


def _check_time(site: Enrolled, now: float) -> None:
    if now >= site.expires:
        raise NotAdmittedError(
            f"this invitation has expired, on {when(site.expires)}", cure=_NEW, status=410
        )
