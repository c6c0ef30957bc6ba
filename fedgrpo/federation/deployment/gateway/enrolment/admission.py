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
    revoked,
)
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.federation.deployment.invitation.invitation import when
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION

MOST_BYTES = 4096
"""Of what a site sends."""
_SIGNS = r"\A[0-9A-Za-z._+-]{0,64}\z"
_NEW = "ask the operator for a new invitation"


class Asking(BaseModel):
    """What a site sends to join, signed like a node's request by the key that is to take part.

    Adversary: whoever sends it. What is said again, to the operator's log or to his console, has
    signs of a fixed list.

    Attributes
    ----------
    site, token:
        Of the invitation.
    fedgrpo, protocol:
        Versions that are installed at the site.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    site: str = Field(pattern=_SIGNS)
    token: str = Field(pattern=_SIGNS)
    fedgrpo: str = Field(pattern=_SIGNS)
    protocol: int = Field(ge=0, lt=1 << 16)

    @classmethod
    def read(cls, body: bytes) -> Asking:
        """Read what came; raises RefusedError if it is something else."""
        try:
            return cls.model_validate_json(body)
        except ValidationError:
            raise RefusedError(
                400, "this is no invitation that a server could read", cure=_NEW
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
    RefusedError
        If the invitation is not known here, was used by another key, or has expired; or if key or
        version cannot take part.
    """
    _check_version(asking)
    _check(book.sites(), asking, key, now)

    def waiting(_: Enrolled | None) -> Enrolled:
        site = _check(book.sites(), asking, key, now)
        known = {"used_by": key, "version": asking.fedgrpo}
        return site.model_copy(update=known if site.key == key else {**known, "waiting": key})

    return book.change(asking.site, waiting)


def check_open(book: Book, asking: Asking, now: float) -> None:
    """Say whether an invitation could be used; it stays as it is. Raises RefusedError.

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
        raise RefusedError(409, "this invitation was used", cure=_NEW)
    _check_time(site, now)


def leave(book: Book, key: str) -> str:
    """Let the site go whose key takes part, and return its name.

    Parameters
    ----------
    book:
        Of the server.
    key:
        Of a node that the SuperLink knows, PEM.

    Raises
    ------
    RefusedError
        If it is no site's, or another one has taken its place by now.
    """
    name = next((name for name, site in book.sites().items() if site.key == key), "")

    def left(site: Enrolled | None) -> Enrolled:
        if not site or site.key != key:
            raise RefusedError(
                404,
                "this node was registered by hand, and its operator has to do it",
                cure="ask him to unregister it",
            )
        return revoked(site, name)

    book.change(name, left)
    return name


def _check_version(asking: Asking) -> None:
    if (asking.fedgrpo, asking.protocol) != (VERSION, PROTOCOL):
        raise RefusedError(
            409,
            f"the server runs fedgrpo {VERSION}, protocol {PROTOCOL}; this site "
            f"{asking.fedgrpo}, protocol {asking.protocol}",
            cure="install the same version on both sides",
        )


def _invited(sites: Sites, asking: Asking) -> Enrolled:
    site = sites.get(asking.site, Enrolled())
    # The same words for a name and for a token, and the same work: nobody is told who was invited.
    fits = secrets.compare_digest(site.token or hashed(""), hashed(asking.token))
    if not (fits and site.token):
        raise RefusedError(
            403,
            "this invitation is not known here: it is of another federation, or was replaced or "
            "revoked",
            cure=_NEW,
        )
    return site


def _check(sites: Sites, asking: Asking, key: str, now: float) -> Enrolled:
    site = _invited(sites, asking)
    if departed(key, sites):
        raise RefusedError(
            403,
            "this site's key was revoked, and a key that was revoked does not come back",
            cure="move node.key away, and join again: a new key is made",
        )
    if any(key in (s.key, s.waiting) for name, s in sites.items() if name != asking.site):
        raise RefusedError(
            409,
            "this key is that of another site",
            cure="join from a folder of its own: --directory FOLDER",
        )
    if site.used_by and site.used_by != key:
        raise RefusedError(
            409,
            "this invitation was used before, by another machine",
            cure=f"{_NEW}; and tell him if it was not you who used it",
        )
    if not site.used_by:
        _check_time(site, now)
    return site


def _check_time(site: Enrolled, now: float) -> None:
    if now >= site.expires:
        raise RefusedError(410, f"this invitation has expired, on {when(site.expires)}", cure=_NEW)
