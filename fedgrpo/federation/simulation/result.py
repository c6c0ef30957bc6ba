"""What a simulated federation came to, for whoever ran it from Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fedgrpo.federation.server.app import Model
from fedgrpo.ground.records import Guarantee
from fedgrpo.model.adapter import AdapterState
from fedgrpo.model.export.card import RunFacts, write_card
from fedgrpo.report.records import RoundRow
from fedgrpo.settings import Settings


@dataclass(frozen=True)
class Result:
    """What a simulated federation came to.

    Attributes
    ----------
    settings:
        Of the run, as they were read.
    history:
        One row a round; round 0 is before training.
    adapter:
        The final one.
    privacy:
        What is guaranteed, against each adversary; empty without differential privacy.
    directory:
        The run directory, where there is one.
    """

    settings: Settings
    history: tuple[RoundRow, ...]
    adapter: AdapterState
    privacy: tuple[Guarantee, ...]
    directory: Path | None
    _model: Model = field(repr=False)

    @property
    def measured(self) -> tuple[RoundRow, ...]:
        """Rounds after which the adapter was measured on held-out prompts."""
        return tuple(row for row in self.history if row.sampled is not None)

    def save(self, folder: str | Path) -> Path:
        """Write the adapter in PEFT's own format: ``PeftModel.from_pretrained`` loads it."""
        place = Path(folder)
        self._model.save(self.settings, self.adapter, place)
        facts = RunFacts(
            settings=self.settings,
            rounds=self.history[-1].round,
            privacy=self.privacy,
            layout=self.adapter.layout,
        )
        write_card(place, facts)
        return place

    def __repr__(self) -> str:
        """One line for a notebook."""
        last = self.history[-1]
        applied = sum(row.applied for row in self.history if row.round)
        parts = [f"{applied} of {last.round} rounds applied"]
        if self.measured:
            first, final = self.measured[0], self.measured[-1]
            parts.append(f"sampled {first.sampled:.3f} -> {final.sampled:.3f}")
            parts.append(f"greedy {first.greedy:.3f} -> {final.greedy:.3f}")
        if self.privacy:
            parts.append(f"epsilon {max(g.epsilon for g in self.privacy):.2f}")
        seconds = sum(sum(row.seconds.values()) for row in self.history)
        return f"Result({', '.join(parts)}, {seconds:.1f} s)"
