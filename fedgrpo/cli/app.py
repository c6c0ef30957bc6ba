"""The command line, put together from :mod:`fedgrpo.cli`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from fedgrpo.cli import ledger, policy
from fedgrpo.cli.doctor import doctor
from fedgrpo.cli.operator import server
from fedgrpo.cli.operator.backup import backup, restore
from fedgrpo.cli.operator.run import run, stop
from fedgrpo.cli.operator.sites import invite, revoke, sites
from fedgrpo.cli.operator.status import status
from fedgrpo.cli.planning.budget import budget
from fedgrpo.cli.planning.calibrate import calibrate
from fedgrpo.cli.planning.dry_run import dry_run
from fedgrpo.cli.runs.export import export
from fedgrpo.cli.runs.personalise import personalise
from fedgrpo.cli.runs.report import report
from fedgrpo.cli.runs.simulate import simulate
from fedgrpo.cli.runs.sweep import sweep
from fedgrpo.cli.runs.train import train
from fedgrpo.cli.settings import settings
from fedgrpo.cli.site import experience
from fedgrpo.cli.site.committee_key import committee_key
from fedgrpo.cli.site.curate import curate
from fedgrpo.cli.site.join import join, leave
from fedgrpo.cli.site.node import node

app = typer.Typer(
    help="Federated reinforcement learning of language models: private, robust and secure at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("simulate")(simulate)
app.command("train")(train)
app.command("personalise")(personalise)
app.command("sweep")(sweep)
app.command("dry-run")(dry_run)
app.command("report")(report)
app.command("export")(export)
app.command("budget")(budget)
app.command("settings")(settings)
app.command("calibrate")(calibrate)
app.command("curate")(curate)
app.command("committee-key")(committee_key)
app.command("join")(join)
app.command("leave")(leave)
app.command("node")(node)
app.command("doctor")(doctor)
app.command("invite")(invite)
app.command("sites")(sites)
app.command("revoke")(revoke)
app.command("run")(run)
app.command("stop")(stop)
app.command("status")(status)
app.command("backup")(backup)
app.command("restore")(restore)
app.add_typer(server.group, name="server")
app.add_typer(policy.group, name="policy")
app.add_typer(experience.group, name="experience")
app.add_typer(ledger.group, name="ledger")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedgrpo {version('fedgrpo')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None: ...


if __name__ == "__main__":
    app()
