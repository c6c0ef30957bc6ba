"""What the federation asks of an evaluator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fedgrpo.model.adapter import AdapterState


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of one global adapter.

    Attributes
    ----------
    sampled, greedy:
        Mean reward of completions sampled at the training temperature, and of the most likely ones.
    kl_base:
        KL divergence (nats) of the adapter from the initial one.
    """

    sampled: float
    greedy: float
    kl_base: float


class Evaluator(Protocol):
    """Measures an adapter on prompts that no client has."""

    def evaluate(self, adapter: AdapterState) -> Evaluation | None:
        """Measure one adapter: the same one gives the same figures. None where there is nothing to
        measure on.
        """
        ...
