"""What a ledger said when it was checked, for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedgrpo.ground.records import Guarantee
from fedgrpo.report.figures import Series


@dataclass(frozen=True)
class CheckedLedger:
    """A ledger that was replayed.

    Attributes
    ----------
    fits:
        Whether every hash, signature and epsilon is what it must be.
    words:
        What was found, in a sentence.
    facts:
        Names and values for whoever wants to compare.
    epsilon:
        Spent after each round, by adversary.
    spent:
        What the last round's entry guarantees.
    """

    fits: bool
    words: str
    facts: Mapping[str, str] = field(default_factory=dict)
    epsilon: Mapping[str, Series] = field(default_factory=dict)
    spent: tuple[Guarantee, ...] = ()
