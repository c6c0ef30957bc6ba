"""``fedgrpo policy``: what this machine allows, has spent, and would say to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.commands.outcome import REFUSED, explained
from fedgrpo.errors import PolicyError

group = typer.Typer(
    help="A data holder's own policy: check it, explain it, and see what has been spent.",
    no_args_is_help=True,
)

PolicyFile = Annotated[Path, typer.Argument(help="The policy file.")]
DEFAULT = Path("policy.toml")


@group.command("explain")
def explain(file: PolicyFile = DEFAULT) -> None:
    """Print one page on what leaves this machine, in plain words."""
    with explained():
        from fedgrpo.policy import Site
        from fedgrpo.policy import explain as page

        site = Site.open(file)
        typer.echo(page(site.policy, site.spending.read().counted), nl=False)


@group.command("check")
def check(
    file: PolicyFile = DEFAULT,
    scenario: Annotated[
        Path | None,
        typer.Argument(help="Settings of a run to hold against it.", show_default=False),
    ] = None,
) -> None:
    """Check a policy file, and what it would say to a run.

    Exit code: 0 if the file is sound and the run would be answered, 2 if not.
    """
    with explained():
        from fedgrpo.policy import CURES, Site, broken_limits, check_spending, rounds_left
        from fedgrpo.policy.account import round_entry
        from fedgrpo.settings import Settings

        site = Site.open(file)
        entries = site.spending.read().counted
        if scenario is None:
            typer.echo(f"{file} is sound; {len(entries)} releases so far")
            return
        settings = Settings.from_toml(scenario)
        broken = broken_limits(site.policy, settings)
        for code, problem in broken:
            typer.echo(f"refused, {code}: {problem}\n  cure: {CURES[code]}", err=True)
        if broken:
            raise typer.Exit(REFUSED)
        try:
            check_spending(site.policy, [*entries, *[round_entry(settings)] * settings.rounds])
        except PolicyError as error:
            left = rounds_left(site.policy, entries, settings)
            typer.echo(
                f"refused after round {left} of {settings.rounds}, {error.code}: {error.problem}",
                err=True,
            )
            raise typer.Exit(REFUSED) from None
        typer.echo(f"all {settings.rounds} rounds of {scenario} would be answered")


@group.command("spent")
def spent(
    file: PolicyFile = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Show what this site has spent, over all runs."""
    with explained():
        from fedgrpo.policy import Site, spent_epsilon
        from fedgrpo.policy.account import UNITS

        site = Site.open(file)
        history, policy = site.spending.read(), site.policy
        figures: dict[str, object] = {
            "releases": len(history.counted),
            "most_releases": policy.rounds,
            "delta": policy.delta,
            "without_noise": sum(e.noise_multiplier == 0 for e in history.counted),
            "torn": bool(history.torn),
        }
        for unit in UNITS:
            if limits := policy.limits(unit):
                figures[f"{unit}_epsilon"] = spent_epsilon(history.counted, unit, policy.delta)
                figures[f"{unit}_largest_epsilon"] = limits.largest_epsilon
        if as_json:
            typer.echo(json.dumps(figures, indent=2))
            return
        for name, value in figures.items():
            written = f"{value:.6g}" if isinstance(value, float) else value
            typer.echo(f"{name.replace('_', ' '):24} {written}")
