"""``fedgrpo policy``: what this machine allows, has spent, and would say to a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgrpo.cli.outcome import REFUSED, explained
from fedgrpo.ground.errors import PolicyError

if TYPE_CHECKING:
    from fedgrpo.settings import Scalar, Settings
    from fedgrpo.site import Policy, Site

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
        from fedgrpo.site import Site
        from fedgrpo.site import explain as page

        site = Site.open(file)
        typer.echo(page(site.policy, site.spending.read().counted), nl=False)


@group.command("check")
def check(
    file: PolicyFile = DEFAULT,
    scenario: Annotated[
        Path | None,
        typer.Argument(help="Settings of a run to hold against it.", show_default=False),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="The node's prompts, to hold against the site's own figures. A node answers only "
            "with prompts that were checked as they are.",
            show_default=False,
        ),
    ] = "",
    columns: Annotated[
        str,
        typer.Option(
            help="What columns are called in them, as in site.toml: prompt=question,answer=key.",
            show_default=False,
        ),
    ] = "",
    state: Annotated[
        Path | None,
        typer.Option(help="The node's folder, where it is not beside the prompts."),
    ] = None,
    site_file: Annotated[
        Path | None,
        typer.Option(
            "--site",
            help="The site.toml that names prompts, columns, folder, model and rewards.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check a policy file, the prompts beside it, and what both would say to a run.

    Exit code: 0 if all is sound and the run would be answered, 2 if not.
    """
    with explained():
        from fedgrpo.settings import Settings
        from fedgrpo.site import Site

        site = Site.open(file)
        settings = Settings.from_toml(scenario) if scenario else None
        named = {"prompts": prompts, "columns": columns, "state": str(state or "")}
        config = _of_site(site_file) | {key: value for key, value in named.items() if value}
        if "prompts" in config:
            unnamed = Settings.from_mapping({"data": {"unit": site.policy.unit_column}})
            _check_prompts(site.policy, settings or unnamed, config)
        if settings is None:
            releases = len(site.spending.read().counted)
            typer.echo(f"{file} is sound; {releases} releases so far")
            return
        _check_run(site, settings, config)
        if "prompts" in config:
            _check_time(site.policy, settings, {**config, "policy": str(file)})
        typer.echo(f"all {settings.rounds} rounds of {scenario} would be answered")


def _of_site(file: Path | None) -> dict[str, Scalar]:
    """What a site's own file says of prompts, model and rewards; nothing without one."""
    if file is None:
        return {}
    from fedgrpo.federation.deployment.site.site_file import SiteFile

    return SiteFile.read(file).node_config


def _check_prompts(policy: Policy, settings: Settings, config: Mapping[str, Scalar]) -> None:
    from fedgrpo.federation.rehearsal import prompt_check

    found = prompt_check.find(config, settings, policy)
    for line in prompt_check.words(found, str(config["prompts"]), settings.model.name):
        typer.echo(line)
    _refuse_if(list(prompt_check.problems(found, policy)))
    prompt_check.leave_stamp(config, found)
    typer.echo("checked: a node may answer with these prompts until they change")


def _check_run(site: Site, settings: Settings, config: Mapping[str, Scalar]) -> None:
    from fedgrpo.site import CURES, broken_limits, check_spending, rounds_left
    from fedgrpo.site.account.costs import round_entry
    from fedgrpo.site.checked import broken_files
    from fedgrpo.site.declared import broken_declarations

    policy, entries = site.policy, site.spending.read().counted
    broken = [
        *broken_limits(policy, settings),
        *broken_declarations(policy, settings),
        *broken_files(policy, settings, config),
    ]
    _refuse_if([f"refused, {code}: {problem}\n  cure: {CURES[code]}" for code, problem in broken])
    try:
        check_spending(policy, [*entries, *[round_entry(settings)] * settings.rounds])
    except PolicyError as error:
        left = rounds_left(policy, entries, settings)
        _refuse_if(
            [f"refused after round {left} of {settings.rounds}, {error.code}: {error.problem}"]
        )


def _check_time(policy: Policy, settings: Settings, config: Mapping[str, Scalar]) -> None:
    """Load what the run names, which the policy allows by now, and time it on this machine."""
    from fedgrpo.federation.rehearsal import prompt_check

    seconds = prompt_check.order_seconds(config, settings)
    if seconds:
        typer.echo(f"an order of this run takes {seconds:.0f} s at most on this machine")
    _refuse_if(list(prompt_check.time_problems(seconds, policy)))


def _refuse_if(said: list[str]) -> None:
    for line in said:
        typer.echo(line, err=True)
    if said:
        raise typer.Exit(REFUSED)


@group.command("spent")
def spent(
    file: PolicyFile = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Show what this site has spent, over all runs, and what went wrong in them."""
    with explained():
        from fedgrpo.site import Site

        site = Site.open(file)
        standing = site.standing()
        figures: dict[str, object] = {
            "releases": standing.releases,
            "most_releases": standing.most_releases,
            "delta": standing.delta,
            "without_noise": standing.without_noise,
            "torn": standing.torn,
        }
        for each in standing.units:
            figures[f"{each.unit}_epsilon"] = each.epsilon
            figures[f"{each.unit}_largest_epsilon"] = each.limit
        mishaps = dict(sorted(site.mishaps.read().items()))
        if as_json:
            typer.echo(json.dumps(figures | {"mishaps": mishaps}, indent=2))
            return
        for name, value in figures.items():
            written = f"{value:.6g}" if isinstance(value, float) else value
            typer.echo(f"{name.replace('_', ' '):24} {written}")
        for cause, times in mishaps.items():
            typer.echo(f"{times:6} x {cause}")
