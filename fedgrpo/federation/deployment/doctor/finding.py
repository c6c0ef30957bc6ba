"""What the doctor says of one thing that it has looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedgrpo.federation.deployment.doctor.troubles import TROUBLES, Light
from fedgrpo.ground.errors import FedGRPOError


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes
    ----------
    code:
        Of docs/troubleshooting.md; empty where all is well.
    line:
        What was found. Quotes no prompt.
    cure:
        What to do; empty where all is well.
    """

    light: Light
    code: str
    line: str
    cure: str

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return self.light is Light.GREEN

    @property
    def stops(self) -> bool:
        """Whether a node does not start while it is so."""
        return bool(self.code) and TROUBLES[self.code].stops

    @property
    def waits(self) -> bool:
        """Whether nothing was looked at, since something else is to be mended first."""
        return self.code == _WAITS


_WAITS = "after-others"
Findings = Iterator[Finding]


def fine(line: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Light.GREEN, "", line, "")


def trouble(code: str, **values: object) -> Finding:
    """Something is wrong.

    Parameters
    ----------
    code:
        Of :data:`~fedgrpo.federation.deployment.doctor.troubles.TROUBLES`.
    values:
        For the braces in its texts.
    """
    found = TROUBLES[code]
    line, cure = (text.format_map(values) for text in (found.problem, found.cure))
    return Finding(found.light, code, line, cure)


def said(code: str, error: FedGRPOError) -> Finding:
    """Something is wrong, in the words of an error."""
    return trouble(code, problem=error.problem, cure=error.cure or "see docs/errors.md")


def waits(why: str) -> Finding:
    """A check that cannot be made while something else is wrong."""
    return trouble(_WAITS, why=why)
