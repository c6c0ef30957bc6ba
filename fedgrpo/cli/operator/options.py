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
SiteName = Annotated[str, typer.Argument(help="Name of the site: hospital-a.", show_default=False)]
