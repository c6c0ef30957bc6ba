"""What the federation asks of an evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedgrpo.ground.records import Sample
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
    rewards:
        Mean of each reward function by name, ``sampled`` and ``greedy``.
    samples:
        A few of the server's own held-out prompts with completions, for its own disk.
    by:
        Mean reward of each value of ``evaluation.by``, ``sampled`` and ``greedy``.
    pass_at:
        Share of prompts that one of k completions solves, by k of ``evaluation.pass_at``.
    """

    sampled: float
    greedy: float
    kl_base: float
    rewards: dict[str, dict[str, float]] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    by: dict[str, dict[str, float]] = field(default_factory=dict)
    pass_at: dict[str, float] = field(default_factory=dict)


class Evaluator(Protocol):
    """Measures an adapter on prompts that no client has."""

    def evaluate(self, adapter: AdapterState, *, at_end: bool = False) -> Evaluation | None:
        """Measure one adapter: the same one gives the same figures. None where there is nothing to
        measure on. At either end of a run also what takes long.
        """
        ...
