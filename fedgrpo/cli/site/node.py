"""``fedgrpo node``: what a site runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained


def node(
    file: Annotated[
        Path, typer.Argument(help="What the node is started with: docs/deployment.md shows one.")
    ] = Path("site.toml"),
    no_policy: Annotated[
        bool,
        typer.Option(
            "--no-policy", help="For tests: start without a policy, and refuse every order."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Log as JSON, an object a line.")] = False,
) -> None:
    """Answer a federation's server with this site's prompts, within this site's policy.

    What runs is what is installed here: code that a server sends is never unpacked. The node
    listens at no port, but for its own status page where site.toml asks for one, and does not
    start while something is wrong with policy or prompts.
    """
    with explained():
        from fedgrpo.federation.deployment.log import log_here
        from fedgrpo.federation.deployment.site.node import run_node
        from fedgrpo.federation.deployment.site.site_file import SiteFile

        log_here(as_json=as_json)
        run_node(SiteFile.read(file), no_policy=no_policy)
