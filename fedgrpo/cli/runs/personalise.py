"""``fedgrpo personalise``: an adapter of a site's own over a shared one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from fedgrpo.cli.options import Fresh, Overrides, RunDir, parse_overrides
from fedgrpo.cli.outcome import explained


def personalise(
    shared_run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Directory of the run whose adapter is shared.", show_default=False
        ),
    ],
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Train on these prompts, less the held-out ones (evaluation.prompts).",
            show_default=False,
        ),
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 100,
    best: Annotated[
        bool, typer.Option("--best", help="Lie over the run's best adapter, not its last.")
    ] = False,
    run_dir: RunDir = None,
    fresh: Fresh = False,
    overrides: Overrides = None,
) -> None:
    """Train a second adapter on a site's own prompts, over a run's adapter, which stays as it is.

    Nothing of it leaves this machine, so it costs no epsilon; it is as private as the prompts. The
    first measurement is the shared adapter alone, the last both together, on prompts held out of
    the file. Ctrl-C finishes the step under way; the same command resumes. `fedgrpo export` hands
    both on as one model.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 interrupted.
    """
    with explained():
        from fedgrpo.standalone.personal import personalise as run

        # `kill` ends what comes before the first step as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        run(
            shared_run,
            prompts,
            steps=steps,
            best=best,
            overrides=parse_overrides(overrides),
            run_dir=run_dir,
            fresh=fresh,
        )
