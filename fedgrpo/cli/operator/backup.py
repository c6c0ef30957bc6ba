"""``fedgrpo backup`` and ``restore``: a federation in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained


def backup(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the server.", show_default=False)
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="To make; it must not exist.", show_default=False)
    ],
) -> None:
    """Copy a federation into one file: keys, book of sites, and all runs with their secrets.

    The server may run meanwhile. Keep the file where nobody else can read it: it is the federation.
    """
    with explained():
        from fedgrpo.federation.deployment.operator.backup import back_up

        count = back_up(folder, file)
        typer.echo(f"{file} has {count} files of {folder}; it is yours alone: whoever has it can")
        typer.echo("stand in for your server, and take the server's own noise off")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to make.", show_default=False)
    ],
) -> None:
    """Make a server's folder of a backup. Sites need not join again."""
    with explained():
        from fedgrpo.federation.deployment.operator.backup import restore as unpack
        from fedgrpo.federation.wire.versions import VERSION

        found = unpack(file, folder)
        typer.echo(f"made {folder}, as it was at {found.made}; start it: fedgrpo server {folder}")
        for run in found.unfinished:
            typer.echo(
                f"run {run} goes on with its next round, if no site has answered a later one since"
            )
        if found.version != VERSION:
            typer.echo(
                f"it is of fedgrpo {found.version}, and {VERSION} is installed: a run goes on only "
                "with the version that it began with"
            )
