"""``fedgrpo train``: the trainer without a federation."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from fedgrpo.cli.options import Fresh, Overrides, RunDir, Scenario, parse_overrides
from fedgrpo.cli.outcome import explained


def train(
    scenario: Scenario,
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Train on these prompts, less the held-out ones: takes the place of data.source.",
            show_default=False,
        ),
    ] = "",
    run_dir: RunDir = None,
    fresh: Fresh = False,
    show_completions: Annotated[
        bool,
        typer.Option(
            "--show-completions",
            help="Print a few held-out prompts with their completions at each evaluation.",
        ),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Train an adapter on this machine alone, without a federation and without any privacy.

    The adapter is as private as the prompts. Takes rounds x grpo.steps optimiser steps and measures
    every evaluation.every x grpo.steps of them. Ctrl-C finishes the step under way; the same
    command resumes.

    Exit code: 0 finished, 1 failed on the way, 2 refused before the start, 130 interrupted.
    """
    with explained():
        from fedgrpo.standalone import train as run

        # `kill` ends what comes before the first step as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        run(
            scenario,
            prompts=prompts,
            overrides=parse_overrides(overrides),
            run_dir=run_dir,
            fresh=fresh,
            show_completions=show_completions,
        )
