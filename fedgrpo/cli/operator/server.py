"""``fedgrpo server``: what an operator runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fedgrpo.cli.operator.options import HERE
from fedgrpo.cli.outcome import explained
from fedgrpo.ground.errors import SettingsError

_START = "start"


class _StartsByDefault(TyperGroup):
    """``fedgrpo server FOLDER`` starts what is there; a word that is a command is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, "-h", "--help"}
        return super().parse_args(ctx, args if args and args[0] in known else [_START, *args])


group = typer.Typer(
    cls=_StartsByDefault,
    help="A federation's server: make its folder with 'init', and start it: fedgrpo server FOLDER.",
)


@group.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    host: Annotated[
        str, typer.Option(help="Name or address at which sites reach this machine.")
    ] = ...,  # type: ignore[assignment]
    port: Annotated[int, typer.Option(help="Port there.", min=1, max=65535)] = 8443,
    public_ca: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--public-ca",
            metavar="CHAIN KEY",
            help="Certificate chain and key, PEM, of a public authority: sites need no file then.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a server's folder: an authority of the federation's own, the server's certificate, and
    federation.toml.
    """
    with explained():
        from fedgrpo.federation.deployment.operator.founding import found

        found(folder, host, port, public=public_ca)
        typer.echo(f"made {folder}, for a server at {host}:{port}; the keys in it are yours alone")
        typer.echo(f"start it:       fedgrpo server {folder}")
        typer.echo(f"invite a site:  fedgrpo invite SITE --settings agreed.toml --server {folder}")


@group.command("renew")
def renew(
    folder: Annotated[Path, typer.Argument(help="Folder of the server.")] = HERE,
) -> None:
    """Have the federation's own authority sign a new certificate. Sites notice nothing."""
    with explained():
        from fedgrpo.federation.deployment.operator.founding import renew as sign

        sign(folder)
        typer.echo(f"renewed; start the server again to use it: fedgrpo server {folder}")


@group.command(_START, hidden=True)
def start(
    state: Annotated[Path, typer.Argument(help="Folder of the server's state.")] = HERE,
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
    host: Annotated[
        str, typer.Option(help="Address to listen on.  [default: 0.0.0.0]", show_default=False)
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on.  [default: 8443]", min=0, max=65535, show_default=False
        ),
    ] = None,
    app: Annotated[
        str,
        typer.Option(
            help="The server app that runs: package.module:name, installed here.  "
            "[default: fedgrpo's own]",
            show_default=False,
        ),
    ] = "",
    status_bind: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the status page and the metrics are served, behind a password; elsewhere "
            "than on loopback by TLS.  [default: federation.toml's]",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Log as JSON, an object a line.")] = False,
) -> None:
    """Run a federation's server: a gateway for its sites, and a SuperLink that only it can reach.

    A folder that 'fedgrpo server init' made says the rest in its federation.toml.
    """
    with explained():
        from fedgrpo.federation.deployment.executor import apps
        from fedgrpo.federation.deployment.log import log_here
        from fedgrpo.federation.deployment.operator.federation_file import FILE, FederationFile
        from fedgrpo.federation.deployment.operator.folder import StateFolder
        from fedgrpo.federation.deployment.operator.serving import Operator, serve

        read = FederationFile.read(state) if (state / FILE).exists() else None
        if status_bind and not read:
            raise SettingsError(
                f"--status-bind {status_bind!r}: {state} has no {FILE} to show the status of",
                cure="make the folder with 'fedgrpo server init', or leave --status-bind out",
            )
        log_here(StateFolder(state.expanduser().absolute()).log, as_json=as_json)
        serve(
            Operator(
                state,
                certificate or (Path(read.certificate) if read else state / "server.pem"),
                key or (Path(read.key) if read else state / "server.key"),
                host or (read.listen if read else "0.0.0.0"),
                port if port is not None else (read.port if read else 8443),
                app or (read.app if read else "") or apps.SERVER,
                status_bind or (read.status_bind if read else ""),
            )
        )
