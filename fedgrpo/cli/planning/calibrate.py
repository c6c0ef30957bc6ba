"""``fedgrpo calibrate``: a clipping norm to begin with, from public prompts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import typer

from fedgrpo.cli.options import Overrides, Scenario, parse_overrides
from fedgrpo.cli.outcome import explained


def calibrate(scenario: Scenario, overrides: Overrides = None) -> None:
    """Print the clipping norm that suits a scenario, by a dry run on its public prompts.

    No client is asked, and no private prompt is read: it costs no privacy. What it is doing goes to
    the error stream.
    """
    with explained():
        from fedgrpo.federation.rehearsal.calibration import calibrated_norm
        from fedgrpo.settings.scenario import load_scenario

        say = partial(typer.echo, err=True)
        settings = load_scenario(scenario, parse_overrides(overrides), Path.cwd())
        typer.echo(f"privacy.clipping_norm = {calibrated_norm(settings, say):.3g}")
