"""``fedgrpo export``: a run's adapter in the forms that others take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.outcome import explained


def export(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN", help="Directory of a finished run.", show_default=False)
    ],
    merged: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write base and adapter as one model of transformers."),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write base and adapter as one GGUF file (llama.cpp)."),
    ] = None,
    hub: Annotated[
        str,
        typer.Option(metavar="NAME", help="Upload the adapter to the Hub; a new one is private."),
    ] = "",
    best: Annotated[
        bool, typer.Option("--best", help="Take the best adapter, by held-out prompts.")
    ] = False,
) -> None:
    """Hand the adapter of a run on: merged into its base, as GGUF, or to the Hub.

    The base model is loaded again by its name in the run's settings, and is refused if it is
    another one than the adapter was trained on.
    """
    with explained():
        from fedgrpo.cli.runs.handed_on import hand_on
        from fedgrpo.standalone.chosen import Chosen

        for line in hand_on(Chosen.of(run_dir, best=best), merged=merged, gguf=gguf, hub=hub):
            typer.echo(line)
