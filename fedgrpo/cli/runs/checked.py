"""A run's ledger, replayed for its page."""

from __future__ import annotations

from pathlib import Path

from fedgrpo.ground.errors import FedGRPOError
from fedgrpo.ledger import FILE, RoundEntry, replay, verify
from fedgrpo.report.figures import Series
from fedgrpo.report.page import CheckedLedger


def check_ledger(run_dir: Path) -> CheckedLedger | None:
    """Replay the ledger of a run; None if it has none."""
    path = run_dir / FILE
    if not path.is_file():
        return None
    try:
        verdict = verify(run_dir)
        entries = replay(path.read_bytes(), FILE).entries
    except FedGRPOError as error:
        return CheckedLedger(False, f"The record does not hold: {error.problem}")
    rounds = [entry for entry in entries if isinstance(entry, RoundEntry)]
    state = "and its end" if verdict.ended else "so far; the run has not ended"
    facts = {
        "Root": verdict.checkpoint.root,
        "Entries": str(verdict.checkpoint.size),
        "Signed by": verdict.public_key,
        **{f"Member {key[:12]} vouches for": f"{n} entries" for key, n in verdict.cosigned.items()},
    }
    checked = "every hash, signature and epsilon was computed again and fits"
    words = f"The signed record has {verdict.rounds} rounds {state}: {checked}."
    return CheckedLedger(True, words, facts, _epsilon(rounds), verdict.epsilon)


def _epsilon(rounds: list[RoundEntry]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for entry in rounds:
        for held in entry.epsilon:
            line = found.setdefault(held.adversary, Series([0.0], [0.0]))
            line.at.append(float(entry.round))
            line.values.append(held.epsilon)
    return found
