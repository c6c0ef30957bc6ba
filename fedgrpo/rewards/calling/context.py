"""What TRL passes to a reward function besides the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainerState:
    """How far the training has come, by TRL's names.

    Attributes
    ----------
    global_step:
        Optimiser steps that were taken before these completions were sampled.
    max_steps:
        In all; 0 if nobody knows.
    """

    global_step: int = 0
    max_steps: int = 0


@dataclass
class Notes:
    """What reward functions log: kept where the prompts are.

    Attributes
    ----------
    extras:
        Columns beside the completions, by name: one value a completion.
    metrics:
        Every value that was logged under a name.
    """

    extras: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Take a column for the table of completions, as TRL's ``log_extra``."""
        self.extras[str(column)] = list(values)

    def log_metric(self, name: str, value: float) -> None:
        """Take a figure, as TRL's ``log_metric``."""
        self.metrics.setdefault(str(name), []).append(float(value))

    def means(self) -> dict[str, float]:
        """Mean of each figure."""
        return {name: sum(values) / len(values) for name, values in self.metrics.items()}

    def keywords(self, state: TrainerState) -> Mapping[str, Any]:
        """The three arguments, by TRL's names."""
        return {
            "trainer_state": state,
            "log_extra": self.log_extra,
            "log_metric": self.log_metric,
        }


CONTEXT = ("trainer_state", "log_extra", "log_metric")
"""Arguments that are no columns."""
