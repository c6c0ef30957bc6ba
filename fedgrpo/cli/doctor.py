"""``fedgrpo doctor``: whether this machine can take part, and what to do where it cannot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from fedgrpo.cli.outcome import explained

if TYPE_CHECKING:
    from fedgrpo.federation.deployment.doctor.examine import Examined


def doctor(
    about: Annotated[
        str,
        typer.Argument(
            help="An invitation (its file or its line), or the site.toml of a site that has joined."
        ),
    ] = "site.toml",
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="This site's prompts.  [default: those of site.toml]",
            show_default=False,
        ),
    ] = "",
    settings: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The settings that were agreed.  [default: the invitation's]",
            show_default=False,
        ),
    ] = "",
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Sample for a few prompts, too (minutes).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of findings.")] = False,
) -> None:
    """See whether this machine can take part in a federation: 21 checks, each with its cure.

    Changes nothing, and sends nothing but a greeting to the server.

    Exit code: 0 all is green, 2 something is yellow, 1 something is red.
    """
    with explained():
        from fedgrpo.federation.deployment.doctor.examine import examine, exit_code
        from fedgrpo.federation.deployment.doctor.surroundings import Surroundings

        here = Surroundings.of(about, prompts=prompts, settings=settings, rehearse=rehearse)
        console, found = Console(highlight=False, soft_wrap=True), []
        for each in examine(here):
            found.append(each)
            if not as_json:
                _tell(each, console)
        if as_json:
            _tell_programs(found)
        else:
            _close(found, console)
        raise typer.Exit(exit_code(found))


_COLOURS = {"green": "green", "yellow": "yellow", "red": "bold red"}


def _tell(examined: Examined, console: Console) -> None:
    name = f"{examined.check.number:2} {examined.check.name:22}"
    for finding in examined.findings:
        light = Text(f"{finding.light:7}", _COLOURS[finding.light])
        code = f" [{finding.code}]" if finding.code else ""
        console.print(light, Text(f"{name} {finding.line}{code}"))
        if finding.cure and not finding.waits:
            console.print(Text(f"{'':33} cure: {finding.cure}"))


def _close(found: list[Examined], console: Console) -> None:
    lights = [each.light for each in found]
    counts = ", ".join(f"{lights.count(light)} {light}" for light in dict.fromkeys(sorted(lights)))
    console.print(f"{len(found)} checks: {counts}. docs/troubleshooting.md has every code.")


def _tell_programs(found: list[Examined]) -> None:
    from fedgrpo.federation.deployment.doctor.registry import as_json

    listed = [as_json(each.check, finding) for each in found for finding in each.findings]
    typer.echo(json.dumps(listed, indent=1))
