"""The registry of checks.

A check is a generator over what is found, made known by its number::

    @check(16, "threads")
    def threads(here: Surroundings) -> Findings:
        yield fine("4 threads of 4")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedgrpo.federation.deployment.doctor.finding import Finding, Findings
from fedgrpo.federation.deployment.doctor.surroundings import Surroundings

Look = Callable[[Surroundings], Findings]


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes
    ----------
    number, name:
        In the list, and for people.
    private:
        Whether what it finds follows from prompts: it is told to who asked, and kept nowhere.
    opens:
        Whether it opens prompts, model or reward. It comes after all others, which take seconds
        together and may send something: when that is sent is not to follow from prompts.
    look:
        Yields what it finds, at least one finding.
    """

    number: int
    name: str
    private: bool
    opens: bool
    look: Look

    @property
    def place(self) -> tuple[bool, int]:
        """What checks are made in the order of."""
        return self.opens, self.number


CHECKS: dict[int, Check] = {}
"""All checks by their numbers."""


def check(
    number: int, name: str, *, private: bool = False, opens: bool = False
) -> Callable[[Look], Look]:
    """Make a check known; see :class:`Check`. Raises ValueError if its number is taken."""

    def add(look: Look) -> Look:
        if number in CHECKS:
            raise ValueError(f"check {number} is there already: {CHECKS[number].name}")
        CHECKS[number] = Check(number, name, private, opens, look)
        return look

    return add


def as_json(check: Check, finding: Finding) -> Mapping[str, object]:
    """A finding for programs."""
    return {
        "check": check.number,
        "name": check.name,
        "light": finding.light.value,
        "code": finding.code,
        "line": finding.line,
        "cure": finding.cure,
    }
