"""``fedgrpo status``: how things stand, on the server's machine and at a site."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.operator.options import HERE, ServerFolder
from fedgrpo.cli.outcome import explained

_AGAIN_S = 5.0
_SITE = "site.toml"


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
    """
    with explained():
        look = _looking(about or server)
        while True:
            lines = list(look(as_json))
            if watch and not as_json:
                typer.clear()
            for line in lines:
                typer.echo(line)
            if not watch:
                return
            time.sleep(_AGAIN_S)


def _looking(place: Path) -> Callable[[bool], Iterator[str]]:
    """What looks at a server or at a site, and tells."""
    file = place / _SITE if place.is_dir() else place
    if file.suffix == ".toml" and file.exists():
        from fedgrpo.federation.deployment.site.site_file import SiteFile
        from fedgrpo.federation.deployment.site.watch import overview, telling

        site = SiteFile.read(file)

        def look_at_site(as_json: bool) -> Iterator[str]:
            seen = overview.look(site, add_up=True)
            yield from [json.dumps(seen.to_json())] if as_json else telling.lines(seen)

        return look_at_site
    from fedgrpo.federation.deployment.operator.runs.watch import looking
    from fedgrpo.federation.deployment.operator.runs.watch.telling import lines

    def look_at_server(as_json: bool) -> Iterator[str]:
        seen = looking.look(place)
        yield from [json.dumps(seen.to_json())] if as_json else lines(seen)

    return look_at_server
