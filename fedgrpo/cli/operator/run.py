"""``fedgrpo run`` and ``stop``: runs of a federation whose server is this machine."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.operator.options import HERE, ServerFolder, folder_of
from fedgrpo.cli.options import Overrides, Scenario, parse_overrides
from fedgrpo.cli.outcome import explained


def run(
    scenario: Scenario,
    name: Annotated[
        str, typer.Option(help="Name of the run.  [default: the file's]", show_default=False)
    ] = "",
    server: ServerFolder = HERE,
    overrides: Overrides = None,
) -> None:
    """Run a scenario with the sites that take part, and show it.

    Everything that can be known is checked before anything starts. Ctrl-C leaves the run alone; the
    same command shows it again, and goes on with it where it was stopped or failed.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 no longer watched.
    """
    with explained():
        from rich.console import Console

        from fedgrpo.federation.deployment.operator.federation_file import FederationFile
        from fedgrpo.federation.deployment.operator.runs import asking
        from fedgrpo.federation.deployment.operator.runs.following import follow_run
        from fedgrpo.federation.deployment.operator.runs.present import present
        from fedgrpo.federation.deployment.operator.runs.seen import seen_run
        from fedgrpo.federation.deployment.operator.wish import Wish
        from fedgrpo.federation.server.checks import check_measuring, server_checks
        from fedgrpo.ground.errors import all_at_once
        from fedgrpo.settings.scenario import read_scenario

        folder, console = folder_of(server), Console()
        federation = FederationFile.read(folder)
        settings = read_scenario(scenario, parse_overrides(overrides), Path.cwd())
        sites = present(folder, time.time())
        all_at_once(
            [
                *(partial(check, settings) for check in (*server_checks(), check_measuring)),
                partial(asking.check_sites, settings, sites),
                partial(asking.check_versions, sites),
            ]
        )
        name = name or scenario.stem
        wish = asking.wish_for(folder, Path(federation.runs), name, settings)
        if asking.goes_on(seen_run(folder), wish):
            wish = Wish.read(folder) or wish
            console.print(
                f"{name} is under way in {wish.directory}", highlight=False, soft_wrap=True
            )
        else:
            asking.ask(folder, wish)
            console.print(
                f"{name} is asked for, in {wish.directory}", highlight=False, soft_wrap=True
            )
        try:
            follow_run(folder, wish, settings.rounds, settings.federation.min_clients, console)
        except KeyboardInterrupt:
            console.print(
                f"{name} goes on; the same command shows it again, 'fedgrpo stop' ends it"
            )
            raise


def stop(server: ServerFolder = HERE) -> None:
    """End the run that is under way. 'fedgrpo run' with its name goes on with it."""
    with explained():
        from fedgrpo.federation.deployment.operator.wish import Wish
        from fedgrpo.ground.errors import RunError

        folder = folder_of(server)
        wish = Wish.read(folder)
        if wish is None:
            raise RunError("no run was asked for", cure="fedgrpo status says how things stand")
        wish.model_copy(update={"stopped": True}).write(folder)
        typer.echo(f"{wish.run} is stopped; 'fedgrpo run' with its name goes on with it")
