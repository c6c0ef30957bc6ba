"""``fedgrpo simulate``: a whole federation on this machine."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from fedgrpo.cli.options import Fresh, Overrides, RunDir, Scenario, parse_overrides
from fedgrpo.cli.outcome import explained

InProcess = Annotated[
    bool,
    typer.Option(
        "--in-process",
        help="Run everything in this process, all clients in one batch where the settings let "
        "them: no Ray, and small runs take seconds.",
    ),
]


def simulate(
    scenario: Scenario,
    run_dir: RunDir = None,
    fresh: Fresh = False,
    in_process: InProcess = False,
    overrides: Overrides = None,
) -> None:
    """Run a scenario with simulated clients in Flower's simulation runtime, or in one process.

    Everything is checked before anything starts. A run that was killed or interrupted is resumed by
    the same command.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 interrupted.
    """
    with explained():
        from fedgrpo.federation.simulation.simulate import simulate as run

        # `kill` ends a run as Ctrl-C does: noted in the run directory, and resumable.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        run(
            scenario,
            overrides=parse_overrides(overrides),
            run_dir=run_dir,
            fresh=fresh,
            in_process=in_process,
        )
