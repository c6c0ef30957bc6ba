"""Why prompts, model and reward were not looked at."""

from __future__ import annotations

from fedgrpo.federation.deployment.doctor.finding import Findings, fine, trouble, waits
from fedgrpo.federation.deployment.doctor.surroundings import Moment, Surroundings
from fedgrpo.ground.errors import FedGRPOError


def unlooked(here: Surroundings) -> Findings:
    """Why nothing was seen; nothing if something was."""
    match here.looked:
        case None if here.moment is not Moment.ASKED:
            yield fine("looked at when a person asks: fedgrpo doctor")
        case None if isinstance(here.given, FedGRPOError):
            yield waits("check 8 comes first")
        case None if not here.settings:
            yield trouble("settings-unknown")
        case None:
            yield waits("no prompts are named: --prompts FILE")
        case FedGRPOError() as error:
            yield trouble("look-died", why=error.problem)
