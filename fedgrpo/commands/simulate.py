"""``fedgrpo simulate``: a whole federation on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.commands.outcome import explained
from fedgrpo.commands.overrides import Overrides, parse_overrides


def simulate(
    scenario: Annotated[Path, typer.Argument(help="TOML file of settings.", show_default=False)],
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where to write. An unfinished run of the same settings there is resumed.  "
            "[default: runs/SCENARIO]",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin a new run beside an unfinished one.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Run a scenario with simulated data holders in Flower's simulation runtime.

    Everything is checked before anything starts. A run that was killed or interrupted is resumed by
    the same command.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 interrupted.
    """
    with explained():
        from fedgrpo.federation.simulate import simulate as run

        # `kill` ends a run as Ctrl-C does: noted in the run directory, and resumable.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        run(scenario, overrides=parse_overrides(overrides), run_dir=run_dir, fresh=fresh)
