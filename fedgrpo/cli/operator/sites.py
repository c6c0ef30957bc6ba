"""``fedgrpo invite``, ``sites`` and ``revoke``: who takes part."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.operator.options import HERE, ServerFolder, SiteName, folder_of
from fedgrpo.cli.outcome import explained


def invite(
    site: SiteName,
    days: Annotated[int, typer.Option(help="For which it can be used.", min=1, max=90)] = 7,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="What was agreed, as TOML.  [default: as in the last invitation]",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="For a site of this name that was invited before.")
    ] = False,
    server: ServerFolder = HERE,
) -> None:
    """Write an invitation for a site: a file, and the same as one line."""
    with explained():
        from fedgrpo.federation.deployment.invitation.invitation import when
        from fedgrpo.federation.deployment.operator.inviting import invite as write

        folder, now = folder_of(server), time.time()
        made = write(folder, site, days=days, settings=settings, again=again, now=now)
        found = made.invitation
        typer.echo(f"{made.file}: send it to {site}. It serves once, until {when(found.expires)}")
        typer.echo(f"or as one line:\n{found.line}")
        typer.echo(f"its fingerprint, to be read over the telephone:  {found.fingerprint}")


def sites(
    confirm: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--confirm",
            metavar="SITE FINGERPRINT",
            help="Let a site take part whose people have read this fingerprint of its key to you.",
            show_default=False,
        ),
    ] = None,
    server: ServerFolder = HERE,
) -> None:
    """List the sites: who was invited, who has joined and waits, who takes part and is there."""
    with explained():
        from fedgrpo.federation.deployment.operator.runs.watch.looking import look
        from fedgrpo.federation.deployment.operator.runs.watch.telling import site_lines

        folder = folder_of(server)
        if confirm:
            _confirm(folder, *confirm)
        for line in site_lines(look(folder)):
            typer.echo(line)


def _confirm(folder: Path, site: str, said: str) -> None:
    from fedgrpo.federation.deployment.gateway.enrolment.book import Book, confirmed
    from fedgrpo.federation.deployment.invitation.fingerprint import heard

    now = int(time.time())
    Book(folder).change(site, lambda before: confirmed(before, site, heard(said), now))
    typer.echo(f"{site} takes part from now on")


def revoke(site: SiteName, server: ServerFolder = HERE) -> None:
    """Shut a site out, from its next request on. Its key never comes back."""
    with explained():
        from fedgrpo.federation.deployment.gateway.enrolment.book import Book, revoked

        Book(folder_of(server)).change(site, lambda before: revoked(before, site))
        typer.echo(f"{site} takes no part any more, and its invitation is void")
