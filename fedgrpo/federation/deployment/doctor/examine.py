"""Making every check, and what becomes of what they find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedgrpo.federation.deployment.doctor import checks  # noqa: F401 - which make themselves known
from fedgrpo.federation.deployment.doctor.finding import Finding, said, trouble
from fedgrpo.federation.deployment.doctor.registry import CHECKS, Check
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings
from fedgrpo.federation.deployment.doctor.troubles import Light
from fedgrpo.ground.errors import FedGRPOError

ALL_GREEN, SOME_RED, SOME_YELLOW = 0, 1, 2
"""Exit codes."""


@dataclass(frozen=True)
class Examined:
    """A check with what it has found."""

    check: Check
    findings: tuple[Finding, ...]

    @property
    def light(self) -> Light:
        """The worst."""
        return worst([finding.light for finding in self.findings])


def examine(here: Surroundings) -> Iterator[Examined]:
    """Make every check in order of their numbers, but last those that open prompts, model or
    reward. Nothing on disk is changed.
    """
    for check in sorted(CHECKS.values(), key=lambda check: check.place):
        yield Examined(check, tuple(_found(check, here)))


def _found(check: Check, here: Surroundings) -> Iterator[Finding]:
    """What a check finds. One that fails says so, and keeps the others from nothing."""
    try:
        yield from check.look(here)
    except FedGRPOError as error:
        yield said("refused", error)
    except Exception as error:
        yield trouble("unforeseen", kind=type(error).__name__)


def worst(lights: Sequence[Light]) -> Light:
    """The worst of some lights; green of none."""
    order = list(Light)
    return max(lights, key=order.index, default=Light.GREEN)


def exit_code(examined: Sequence[Examined]) -> int:
    """What the command ends with."""
    light = worst([each.light for each in examined])
    return {Light.GREEN: ALL_GREEN, Light.YELLOW: SOME_YELLOW, Light.RED: SOME_RED}[light]
