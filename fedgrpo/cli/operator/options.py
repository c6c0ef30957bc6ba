"""Which server a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ServerFolder = Annotated[
    Path,
    typer.Option(
        "--server",
        envvar="FEDGRPO_SERVER",
        help="Folder that 'fedgrpo server init' made.  [default: where you are]",
        show_default=False,
    ),
]
"""The option, for every command of the operator."""
HERE = Path(".")


def folder_of(server: Path) -> Path:
    """The folder, absolute; raises SettingsError if it is no federation's, so that nothing is
    looked for or written elsewhere.
    """
    from fedgrpo.federation.deployment.operator.federation_file import FederationFile

    FederationFile.read(server)
    return server.expanduser().absolute()


SiteName = Annotated[str, typer.Argument(help="Name of the site: hospital-a.", show_default=False)]
