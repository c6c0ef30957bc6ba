"""``fedgrpo server``: what an operator runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained


def server(
    state: Annotated[Path, typer.Argument(help="Folder of the server's state.")],
    certificate: Annotated[
        Path | None,
        typer.Option(
            help="PEM certificate that sites see, with its chain.  [default: STATE/server.pem]",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Private key of the certificate.  [default: STATE/server.key]", show_default=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8443,
    app: Annotated[
        str,
        typer.Option(
            help="The server app that runs: package.module:name, installed here.  "
            "[default: fedgrpo's own]",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Run a federation's server: a gateway for its sites, and a SuperLink that only it can reach.

    Runs are submitted on this machine, with the command that is printed.
    """
    with explained():
        from fedgrpo.federation.deployment.executor import apps
        from fedgrpo.federation.deployment.log import log_to_stderr
        from fedgrpo.federation.deployment.operator.serving import Operator, serve

        log_to_stderr()
        certificate = certificate or state / "server.pem"
        key = key or state / "server.key"
        serve(Operator(state, certificate, key, host, port, app or apps.SERVER))
