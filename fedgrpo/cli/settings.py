"""``fedgrpo settings``: what can be set."""

from __future__ import annotations

from typing import Annotated

import typer


def settings(
    flower: Annotated[
        bool,
        typer.Option(
            "--flower",
            help="Print the defaults as the table that `flwr run` needs in pyproject.toml.",
        ),
    ] = False,
) -> None:
    """Print every setting with its type, default and meaning, as Markdown."""
    from fedgrpo.federation.wire.app_bundle import config_table
    from fedgrpo.settings.reference import to_markdown

    typer.echo(config_table() if flower else to_markdown(), nl=False)
