"""Server optimisers: how an aggregated delta becomes a step (adaptive federated optimisation, arXiv
2003.00295).

A delta points downhill, so each optimiser treats it as the negative gradient. All arithmetic is
float64. Adam's moments are corrected for their start at zero, as in torch and unlike the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.parts import Registry
from fedgrpo.settings import ServerSettings

Vector = NDArray[np.float64]


def _nothing() -> Vector:
    return np.zeros(0)


@dataclass(frozen=True)
class OptimiserState:
    """What an optimiser remembers between rounds.

    Attributes
    ----------
    steps:
        Deltas applied so far.
    first, second:
        Moment estimates, float64, shape (d,), or (0,) before the first step and where the optimiser
        has none.
    """

    steps: int = 0
    first: Vector = field(default_factory=_nothing)
    second: Vector = field(default_factory=_nothing)


Step = Callable[..., tuple[OptimiserState, Vector]]
"""``(settings, state, delta (d,), rate, **options) -> (next state, update (d,) to add to the
adapter)``.
"""

OPTIMISERS: Registry[Step] = Registry("server.optimiser")
register_optimiser = OPTIMISERS.register


def server_step(
    settings: ServerSettings, state: OptimiserState, delta: Vector, rate: float
) -> tuple[OptimiserState, Vector]:
    """Apply the configured optimiser; raises SettingsError if there is no such optimiser, or its
    update has another shape.

    Parameters
    ----------
    settings:
        Names the optimiser and its decay rates.
    state:
        What it remembered.
    delta:
        Aggregated delta, float64, shape (d,).
    rate:
        Step size of this round, see :func:`rate_at`.

    Returns
    -------
    tuple
        The next state, and the update to add to the adapter, float64, shape (d,).
    """
    after, update = OPTIMISERS[settings.optimiser](settings, state, delta, rate)
    if update.shape != delta.shape:
        raise SettingsError(
            f"server.optimiser = {settings.optimiser!r} returned shape {update.shape}, not "
            f"{delta.shape}",
            cure="return one number for each of the delta",
        )
    return after, update


def rate_at(settings: ServerSettings, round: int, rounds: int) -> float:
    """Step size of a round (from 1), falling linearly to ``final_rate`` of itself."""
    progress = (round - 1) / max(rounds - 1, 1)
    return settings.learning_rate * (1 - (1 - settings.final_rate) * progress)


@register_optimiser("fedavg")
def fedavg(
    settings: ServerSettings, state: OptimiserState, delta: Vector, rate: float
) -> tuple[OptimiserState, Vector]:
    """Plain descent; rate 1 applies the delta as it is (arXiv 1602.05629)."""
    return OptimiserState(state.steps + 1), rate * delta


@register_optimiser("fedavgm")
def fedavgm(
    settings: ServerSettings, state: OptimiserState, delta: Vector, rate: float
) -> tuple[OptimiserState, Vector]:
    """Heavy-ball momentum (arXiv 1909.06335)."""
    first = settings.momentum * _moment(state.first, delta) + delta
    return OptimiserState(state.steps + 1, first), rate * first


@register_optimiser("fedadam")
def fedadam(
    settings: ServerSettings, state: OptimiserState, delta: Vector, rate: float
) -> tuple[OptimiserState, Vector]:
    """Adam on the negative delta (arXiv 1412.6980)."""
    steps = state.steps + 1
    first = settings.momentum * _moment(state.first, delta) + (1 - settings.momentum) * delta
    decay = settings.second_momentum
    second = decay * _moment(state.second, delta) + (1 - decay) * delta**2
    mean = first / (1 - settings.momentum**steps)
    scale = np.sqrt(second / (1 - decay**steps)) + settings.epsilon
    return OptimiserState(steps, first, second), rate * mean / scale


def _moment(stored: Vector, delta: Vector) -> Vector:
    return stored if stored.size else np.zeros_like(delta)
