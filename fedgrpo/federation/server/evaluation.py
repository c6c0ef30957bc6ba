"""What the federation asks of an evaluator."""

from __future__ import annotations

from typing import Protocol

from fedgrpo.ground.records import Evaluation
from fedgrpo.model.adapter import AdapterState


class Evaluator(Protocol):
    """Measures an adapter on prompts that no client has."""

    def evaluate(self, adapter: AdapterState, *, at_end: bool = False) -> Evaluation | None:
        """Measure one adapter: the same one gives the same figures. None where there is nothing to
        measure on. At either end of a run also what takes long.
        """
        ...
