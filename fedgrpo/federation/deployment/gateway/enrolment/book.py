"""``sites.json``: the operator's book of sites."""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedgrpo.federation.deployment.invitation.fingerprint import fingerprint
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import owner_only, replace_file

FILE, LOCK = "sites.json", ".sites.lock"
WAITS, TAKES_PART = "waits for confirmation", "takes part"
"""States of sites that others ask about."""


class Enrolled(BaseModel):
    """A site in the book. Keys are public ones as nodes show them: PEM.

    Attributes
    ----------
    token:
        SHA-256 (hex) of the invitation's token; empty when there is no open invitation.
    expires:
        Unix time, in seconds, of the invitation's end.
    settings:
        Fingerprint of the settings that the site was invited with.
    used_by:
        Key that came with the token.
    waiting:
        Key that the operator has yet to confirm.
    key:
        Key that takes part.
    former:
        Keys that do not any more.
    version:
        Of fedgrpo, as the site said last.
    joined:
        Unix time, in seconds, of the operator's confirmation; 0 before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    token: str = ""
    expires: int = 0
    settings: str = ""
    used_by: str = ""
    waiting: str = ""
    key: str = ""
    former: list[str] = []
    version: str = ""
    joined: int = 0

    @property
    def fingerprint(self) -> str:
        """Of the key that counts: the one that waits, else the one that takes part."""
        key = self.waiting or self.key
        return fingerprint(key.encode()) if key else ""

    @property
    def had_another_key(self) -> bool:
        """Whether the site took part before, with a key other than the one that counts."""
        return bool(self.former or (self.key and self.waiting))

    def state(self, now: float) -> str:
        """What the site is at the moment, in words of a fixed list."""
        if self.waiting:
            return WAITS
        if self.key:
            return TAKES_PART
        if self.token and not self.used_by:
            return "invited" if now < self.expires else "invitation expired"
        return "revoked"


Sites = Mapping[str, Enrolled]
"""By name."""
_SITES = TypeAdapter(dict[str, Enrolled])
_NOBODY: Sites = {}
"""The same each time, so that whoever watches the book sees that nothing has changed."""


class Book:
    """The file, which commands and the server change alike.

    Parameters
    ----------
    folder:
        The server's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # In one piece: threads that change the book look into it beside the one that answers.
        self._seen: tuple[tuple[int, int], Sites] = (0, 0), {}

    def sites(self) -> Sites:
        """Read it, again only if it was changed; raises RunError if it cannot be read."""
        try:
            status, seen = (self._folder / FILE).stat(), self._seen
            stamp = status.st_mtime_ns, status.st_ino
            if stamp != seen[0]:
                read = _SITES.validate_json((self._folder / FILE).read_bytes())
                self._seen = seen = stamp, read
        except FileNotFoundError:
            return _NOBODY
        except (OSError, ValidationError) as error:
            raise RunError(
                f"the book of sites {self._folder / FILE} cannot be read ({type(error).__name__})",
                cure="restore it from a backup",
            ) from None
        return seen[1]

    def change(self, name: str, changed: Callable[[Enrolled | None], Enrolled]) -> Enrolled:
        """Change one site, alone, and on disk when this returns.

        Parameters
        ----------
        name:
            Of the site.
        changed:
            Gets what the book has, or None, and returns what it is to have; what it raises leaves
            the book as it is.
        """
        with self._alone():
            sites = dict(self.sites())
            sites[name] = changed(sites.get(name))
            dumped = {name: site.model_dump() for name, site in sorted(sites.items())}
            content = json.dumps(dumped, indent=1).encode() + b"\n"
            replace_file(self._folder / FILE, content, mode=0o600)
            return sites[name]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for whoever else is changing it, which takes milliseconds."""
        with open(self._folder / LOCK, "w", opener=owner_only) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def hashed(token: str) -> str:
    """What the book keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def invited(
    before: Enrolled | None, token: str, expires: int, settings: str, *, again: bool, name: str
) -> Enrolled:
    """A site with an open invitation.

    Parameters
    ----------
    before:
        What the book has.
    token, expires, settings:
        Of the invitation, see :class:`Enrolled`.
    again:
        Whether the site may be in the book already. Its key takes part until another one is
        confirmed.
    name:
        For the error.

    Raises
    ------
    RunError
        If it is and may not, or the other way round.
    """
    if before and not again:
        raise RunError(
            f"site {name} was invited before",
            cure=f"fedgrpo invite {name} --again makes a new invitation for a site of that name",
        )
    if again and not before:
        raise RunError(f"no site {name} was ever invited", cure="leave --again out")
    return (before or Enrolled()).model_copy(
        update={"token": hashed(token), "expires": expires, "settings": settings, "used_by": ""}
    )


def confirmed(before: Enrolled | None, name: str, heard: str, now: int) -> Enrolled:
    """A site whose waiting key takes part from now on.

    Parameters
    ----------
    before:
        What the book has.
    name:
        For the errors.
    heard:
        Fingerprint that the site's people have read to the operator.
    now:
        Unix time, in seconds.

    Raises
    ------
    RunError
        If no key waits, or it is another one.
    """
    if not before:
        raise RunError(f"there is no site {name}", cure="fedgrpo sites lists them")
    if not before.waiting and before.key and secrets.compare_digest(before.fingerprint, heard):
        return before
    if not before.waiting:
        raise RunError(
            f"no key of {name} waits for confirmation",
            cure="ask the site to run fedgrpo join with its invitation",
        )
    if not secrets.compare_digest(before.fingerprint, heard):
        raise RunError(
            f"the key that came for {name} is another one: {before.fingerprint}, and not {heard}",
            cure="have it read again. If it still differs, somebody else has used the invitation: "
            f"fedgrpo revoke {name}, then fedgrpo invite {name} --again by a safer way",
        )
    former = [*before.former, *([before.key] if before.key else [])]
    return before.model_copy(
        update={"key": before.waiting, "waiting": "", "former": former, "joined": now}
    )


def told_version(before: Enrolled | None, key: str, version: str) -> Enrolled:
    """A site whose node has said what it runs; a key that takes part no more says nothing.

    Parameters
    ----------
    before:
        What the book has.
    key:
        That has signed it.
    version:
        Of fedgrpo.
    """
    assert before, "the caller has found it"
    return before.model_copy(update={"version": version}) if before.key == key else before


def revoked(before: Enrolled | None, name: str) -> Enrolled:
    """A site that takes no part any more, and whose invitation is void; raises RunError if there
    is none.
    """
    if not before:
        raise RunError(f"there is no site {name}", cure="fedgrpo sites lists them")
    gone = [key for key in (before.key, before.waiting) if key]
    return before.model_copy(
        update={
            "token": "",
            "used_by": "",
            "waiting": "",
            "key": "",
            "former": [*before.former, *gone],
        }
    )


def departed(key: str, sites: Sites) -> str:
    """Name of the site to which a key belonged that does not take part any more; empty if none."""
    return next((name for name, site in sites.items() if key in site.former), "")
