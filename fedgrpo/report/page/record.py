"""What a run's ledger says, for a page: checked before it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedgrpo.ground.errors import FedGRPOError
from fedgrpo.ground.records import Guarantee
from fedgrpo.ledger import FILE, RoundEntry, replay, verify
from fedgrpo.report.figures import Series


@dataclass(frozen=True)
class Record:
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


def read_record(run_dir: Path) -> Record | None:
    """Replay the ledger of a run; None if it has none."""
    path = run_dir / FILE
    if not path.is_file():
        return None
    try:
        verdict = verify(run_dir)
        entries = replay(path.read_bytes(), FILE).entries
    except FedGRPOError as error:
        return Record(False, f"The record does not hold: {error.problem}")
    rounds = [entry for entry in entries if isinstance(entry, RoundEntry)]
    state = "and its end" if verdict.ended else "so far; the run has not ended"
    facts = {
        "Root": verdict.checkpoint.root,
        "Entries": str(verdict.checkpoint.size),
        "Signed by": verdict.public_key,
        **{f"Member {key[:12]} vouches for": f"{n} entries" for key, n in verdict.cosigned.items()},
    }
    words = (
        f"{verdict.rounds} rounds {state}. Every hash and signature was computed again and fits."
    )
    return Record(True, words, facts, _epsilon(rounds), verdict.epsilon)


def _epsilon(rounds: list[RoundEntry]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for entry in rounds:
        for held in entry.epsilon:
            line = found.setdefault(held.adversary, Series([0.0], [0.0]))
            line.at.append(float(entry.round))
            line.values.append(held.epsilon)
    return found
