"""``fedgrpo status``: how things stand, on the server's machine and at a site."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.operator.options import HERE, ServerFolder
from fedgrpo.cli.outcome import FAILED, explained

_AGAIN_S = 5.0
_SITE = "site.toml"

Look = Callable[[bool], tuple[list[str], bool]]
"""Looks, and says what is seen, as JSON or in words, and whether what is looked at runs."""


def status(
    about: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a server or a site, or a site.toml.  [default: as --server says]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds.")] = False,
    server: ServerFolder = HERE,
) -> None:
    """Show how server, sites and run stand, and what somebody should do; at a site, how its node,
    its account and its clock do.

    Exit code: 0 server or node runs, 1 it does not.
    """
    with explained():
        look = _looking(about or server)
        while True:
            lines, runs = look(as_json)
            if watch and not as_json:
                typer.clear()
            for line in lines:
                typer.echo(line)
            if not watch:
                raise typer.Exit(0 if runs else FAILED)
            time.sleep(_AGAIN_S)


def _looking(place: Path) -> Look:
    """What looks at a server or at a site, and tells."""
    file = place / _SITE if place.is_dir() else place
    if file.suffix == ".toml" and file.exists():
        from fedgrpo.federation.deployment.site.site_file import SiteFile
        from fedgrpo.federation.deployment.site.watch import overview, telling

        site = SiteFile.read(file)

        def look_at_site(as_json: bool) -> tuple[list[str], bool]:
            seen = overview.look(site, add_up=True)
            said = [json.dumps(seen.to_json())] if as_json else list(telling.lines(seen))
            return said, bool(seen.running)

        return look_at_site
    from fedgrpo.federation.deployment.operator.runs.watch import looking
    from fedgrpo.federation.deployment.operator.runs.watch.telling import lines

    def look_at_server(as_json: bool) -> tuple[list[str], bool]:
        seen = looking.look(place)
        said = [json.dumps(seen.to_json())] if as_json else list(lines(seen))
        return said, seen.running

    return look_at_server
