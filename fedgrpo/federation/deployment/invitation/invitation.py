"""``hospital-a.invitation``: all that a site needs to know of a federation."""

from __future__ import annotations

import base64
import binascii
import json
import re
import tomllib
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedgrpo.federation.deployment.invitation.fingerprint import fingerprint
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION
from fedgrpo.ground.errors import InvitationError, SettingsError
from fedgrpo.settings import Settings
from fedgrpo.settings.reading import faults

SUFFIX = ".invitation"
"""Of the file."""
SYSTEM = "system"
"""In the place of a certificate: the public authorities that the site's machine knows."""
SITE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""What a site may be called."""
_LINE = "fedgrpo-invitation:"
_ABOUT = "An invitation to a federation. Keep it to yourself. Use it: fedgrpo join FILE"
_MOST = 1 << 18
_NEW = "ask the operator for a new one"


class Invitation(BaseModel):
    """An invitation of one site.

    Attributes
    ----------
    server:
        ``HOST:PORT`` of the operator's server.
    ca:
        Its root certificate, PEM, or ``system``.
    site:
        Name by which the operator knows the site.
    token:
        Secret that serves once.
    expires:
        Unix time, in seconds.
    fedgrpo:
        Version of the server.
    settings:
        What was agreed, as TOML.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    server: str
    ca: str
    site: str
    token: str = Field(min_length=32, max_length=64)
    expires: int
    fedgrpo: str
    settings: str

    @field_validator("server")
    @classmethod
    def _has_a_port(cls, server: str) -> str:
        host, _, port = server.rpartition(":")
        if not (re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", host) and port.isdecimal()):
            raise ValueError("is no HOST:PORT")
        return server

    @field_validator("site")
    @classmethod
    def _is_a_name(cls, site: str) -> str:
        if not SITE_NAME.fullmatch(site):
            raise ValueError("is no name of small letters, digits and hyphens")
        return site

    @field_validator("ca")
    @classmethod
    def _is_a_certificate(cls, ca: str) -> str:
        if ca != SYSTEM and not ca.startswith("-----BEGIN CERTIFICATE-----"):
            raise ValueError(f"is neither a certificate nor {SYSTEM!r}")
        return ca

    @property
    def fingerprint(self) -> str:
        """Of all of it, settings and token included, in four groups of four."""
        return fingerprint(_canonical(self.model_dump()))

    @property
    def question(self) -> bytes:
        """What a site sends to ask whether it is open, or, signed, to join with it."""
        said = {"site": self.site, "token": self.token, "fedgrpo": VERSION, "protocol": PROTOCOL}
        return json.dumps(said).encode()

    @property
    def line(self) -> str:
        """The invitation as one line."""
        packed = zlib.compress(_canonical(self._signed()), 9)
        return _LINE + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @property
    def text(self) -> str:
        """The invitation as a file, which people can read."""
        return json.dumps({"about": _ABOUT, **self._signed()}, indent=1) + "\n"

    def _signed(self) -> dict[str, object]:
        return {**self.model_dump(), "fingerprint": self.fingerprint}

    @classmethod
    def read(cls, source: str | Path) -> Self:
        """Read a file, or a line.

        Parameters
        ----------
        source:
            Path of the file, or the line itself.

        Raises
        ------
        InvitationError
            If it cannot be read, or is not as the operator has written it.
        """
        given = str(source).strip()
        if given.startswith(_LINE):
            return cls._from(_unpacked("".join(given.split())), "the line")
        try:
            with Path(given).expanduser().open("rb") as file:
                content = file.read(_MOST + 1)
        except OSError as error:
            raise InvitationError(
                f"invitation {given[:200]} cannot be read ({type(error).__name__})",
                cure=f"name the file that the operator sent, or its line, in quotes: '{_LINE}...'",
            ) from None
        if content.lstrip().startswith(_LINE.encode()):
            return cls._from(_unpacked(b"".join(content.split()).decode("ascii", "replace")), given)
        return cls._from(content, f"invitation {given}")

    @classmethod
    def _from(cls, content: bytes, name: str) -> Self:
        try:
            found = json.loads(content) if len(content) <= _MOST else None
            if not isinstance(found, dict):
                raise TypeError
            found.pop("about", None)
            said = found.pop("fingerprint")
            read = cls.model_validate(found)
        except ValidationError as error:
            raise InvitationError(f"{name} cannot be used: {faults(error)}", cure=_NEW) from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvitationError(f"{name} is no invitation, or not all of it", cure=_NEW) from None
        if said != read.fingerprint:
            raise InvitationError(
                f"{name} was changed on its way: it says that its fingerprint is "
                f"{str(said)[:40]}, and it is {read.fingerprint}",
                cure="do not use it. Telephone the operator, and have it sent again by another way",
            )
        return read

    def check(self, now: float, version: str) -> None:
        """Refuse an invitation that can no longer be used here.

        Parameters
        ----------
        now:
            Unix time, in seconds.
        version:
            Of the installed fedgrpo.

        Raises
        ------
        InvitationError
            If it has expired, or is of another version.
        """
        if now >= self.expires:
            raise InvitationError(
                f"the invitation of {self.site} has expired, on {when(self.expires)}",
                cure=f"{_NEW}: fedgrpo invite {self.site} --again",
            )
        if version != self.fedgrpo:
            raise InvitationError(
                f"the invitation is to fedgrpo {self.fedgrpo}, and {version} is installed here",
                cure=f"install fedgrpo {self.fedgrpo}, from the wheel that the operator names",
            )

    def agreed(self) -> Settings:
        """Read the settings; raises SettingsError if they are none."""
        return Settings.from_mapping(agreed_tree(self.settings))


def agreed_tree(text: str) -> Mapping[str, object]:
    """Read settings as an invitation carries them; raises SettingsError if they are no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the invitation's settings are no TOML: {error}", cure=_NEW) from None


def when(unix: float) -> str:
    """Write a moment for people, in UTC."""
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M} UTC"


def _canonical(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _unpacked(line: str) -> bytes:
    packed = line.removeprefix(_LINE)
    try:
        raw = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        return zlib.decompressobj().decompress(raw, _MOST + 1)
    except (binascii.Error, ValueError, zlib.error):
        raise InvitationError("the line is no invitation, or not all of it", cure=_NEW) from None
