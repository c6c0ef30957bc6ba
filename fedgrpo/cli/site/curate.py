"""``fedgrpo curate``: a site's prompts, by its own rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained


def curate(
    prompts: Annotated[
        Path, typer.Argument(help="File of prompts; it stays as it is.", show_default=False)
    ],
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file of rules.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write.  [default: PROMPTS-curated]"),
    ] = None,
    by: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run, or scenario, whose policy says how hard a prompt is (rules: samples).",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(help="What columns are called, as in site.toml: prompt=question,answer=key."),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether a manifest beside the file fits it.")
    ] = False,
) -> None:
    """Curate a file of prompts: rows that stay, rows that go with reasons, and a manifest of both.

    Nothing is sent. The manifest counts private rows and stays here; the commitment that is printed
    says nothing without the salt beside it, and may be shown.

    Exit code: 0 done, or the manifest fits; 2 refused.
    """
    with explained():
        from fedgrpo.standalone.curation.curating import checked, curate_file

        if check:
            manifest, commitment = checked(prompts)
            typer.echo(f"{prompts} is as it was curated: {manifest.kept.rows} rows")
            typer.echo(f"commitment {commitment}")
            return
        made = curate_file(prompts, rules, out, by, columns)
        for count in made.manifest.counts:
            if count.rows:
                typer.echo(f"{count.rows:8} rows go: {count.rule}")
        left = made.manifest
        typer.echo(f"{left.kept.rows:8} of {left.source.rows} rows stay, {left.units} units")
        if left.near_reported:
            typer.echo(f"{left.near_reported:8} near pairs are of two persons, and stay")
        typer.echo(left.privacy)
        typer.echo(f"written to {made.folder}; commitment {made.commitment}")
