"""``fedgrpo dry-run``: what taking part would mean, on a client's own prompts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from fedgrpo.cli.options import Overrides, Scenario, parse_overrides
from fedgrpo.cli.outcome import explained


def dry_run(
    scenario: Scenario,
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="This client's own prompts.  [default: those of the scenario's first client]",
            show_default=False,
        ),
    ] = "",
    prompts_limit: Annotated[
        int, typer.Option(min=1, help="Most prompts to sample for; costs are drawn out to a round.")
    ] = 32,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one line of JSON.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Measure what taking part would mean for a data holder: rewards, speed, memory, traffic.

    Writes nothing, sends nothing and prints no prompt. The figures describe private prompts without
    any noise: keep them where the prompts are.

    Exit code: 0 measured, 2 refused.
    """
    with explained():
        from fedgrpo.federation.rehearsal.dry_run import dry_run as measure
        from fedgrpo.ground.records import to_json
        from fedgrpo.report.console.dry_run import print_dry_run

        found = measure(
            scenario,
            prompts=prompts,
            overrides=parse_overrides(overrides),
            sample=prompts_limit,
        )
        if as_json:
            typer.echo(to_json(found))
        else:
            print_dry_run(found, Console())
