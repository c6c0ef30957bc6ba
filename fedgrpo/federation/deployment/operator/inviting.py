"""``fedgrpo invite``: what a site is handed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.federation.deployment.gateway.enrolment.book import Book, invited
from fedgrpo.federation.deployment.invitation.invitation import SITE_NAME, SUFFIX, Invitation
from fedgrpo.federation.deployment.operator.federation_file import FederationFile
from fedgrpo.federation.wire.app_bundle import to_toml
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import Settings
from fedgrpo.settings.scenario import read_scenario

AGREED = "agreed.toml"
"""Settings that sites were invited with last."""
DAY_S = 86_400
_OPERATORS_OWN = ("run.", "simulation.")
"""Sections that concern no site."""


@dataclass(frozen=True)
class Invited:
    """An invitation and the file that it was written to."""

    invitation: Invitation
    file: Path


def invite(
    folder: Path, site: str, *, days: int, settings: Path | None, again: bool, now: float
) -> Invited:
    """Enter a site into the book, and write its invitation.

    Parameters
    ----------
    folder:
        The server's, with its ``federation.toml``.
    site:
        Name of the site.
    days:
        For which the invitation can be used.
    settings:
        TOML file of what was agreed; None takes those of the last invitation.
    again:
        Whether the site is in the book already.
    now:
        Unix time, in seconds.

    Raises
    ------
    SettingsError, RunError
        If a name, the settings or the folder cannot be used, or the site is in the book.
    """
    if not SITE_NAME.fullmatch(site):
        raise SettingsError(
            f"{site!r} cannot be the name of a site",
            cure="use small letters, digits and hyphens: hospital-a",
        )
    federation, agreed = FederationFile.read(folder), _agreed(folder, settings)
    token, expires = secrets.token_urlsafe(32), int(now) + days * DAY_S
    invitation = Invitation(
        server=federation.server,
        ca=federation.root(),
        site=site,
        token=token,
        expires=expires,
        fedgrpo=VERSION,
        settings=agreed_text(agreed),
    )
    Book(folder).change(
        site,
        lambda before: invited(
            before, token, expires, agreed.fingerprint(), again=again, name=site
        ),
    )
    replace_file(folder / AGREED, invitation.settings.encode())
    file = folder / "invitations" / f"{site}{SUFFIX}"
    replace_file(file, invitation.text.encode(), mode=0o600)
    return Invited(invitation, file)


def agreed_text(settings: Settings) -> str:
    """Settings as TOML: those that are not as they come, and concern sites."""
    plain = Settings().to_run_config()
    changed = {key: value for key, value in settings.to_run_config().items() if plain[key] != value}
    return to_toml({k: v for k, v in changed.items() if not k.startswith(_OPERATORS_OWN)})


def _agreed(folder: Path, settings: Path | None) -> Settings:
    if settings is None and not (folder / AGREED).exists():
        raise RunError(
            "nothing was agreed yet that a site could be invited to",
            cure="name the settings of the runs to come: --settings agreed.toml",
        )
    return read_scenario(settings or folder / AGREED, {}, Path.cwd())
