"""What a simulated attacker may know: everything, where one process simulates everybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import AdapterError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Insight:
    """What only a simulation that computes everybody's releases together can tell attackers.

    Attributes
    ----------
    own, honest, last:
        See :class:`Knowledge`.
    """

    own: Floats
    honest: Floats
    last: Floats | None


@dataclass(frozen=True)
class Knowledge:
    """What an attacker knows beside its own vector. Arrays are not to be changed.

    A release has ``size`` coordinates: first those of the update, then a few metrics, which are of
    another scale, and perhaps a clipping indicator. An attack that measures lengths or distances
    looks at ``[:update]`` alone.

    Attributes
    ----------
    boost:
        Factor by which it enlarges what it sends (``simulation.boost``).
    round:
        Current round, from 1.
    update:
        Coordinates of the update, the first ones.
    own:
        float64, shape (k, size): what colluders would have sent honestly, one a row, the
        attacker's own among them, in the order of clients. All ``attackers`` of them where one
        process simulates everybody; else those that this process has met in this round.
    honest:
        float64, shape (h, size): what the clients send that do not attack. None where attackers
        cannot know: outside of the batched engine.
    first:
        float64, shape (size,): what the attacker itself would have sent honestly in the first
        round that it saw of the run. None in that round.
    step:
        float64, shape (size,): last step of the global adapter, followed by zeros. None in the
        first round.
    way:
        float64, shape (size,): how far the global adapter has come since the first round that the
        attacker saw, followed by zeros.
    last:
        float64, shape (update,): last aggregate that was released, in the units of this round's
        releases. None in the first round, and outside of the batched engine.
    clients, attackers:
        How many there are, n and f: attackers are among the clients.
    rule, trim:
        ``robust.rule`` with its options, and ``robust.trim``.
    seed:
        The run's public seed.
    radius:
        L2 norm of the ball that updates are checked against, in units of a release; 0 for none.
    """

    boost: float
    round: int
    update: int
    own: Floats
    honest: Floats | None = None
    first: Floats | None = None
    step: Floats | None = None
    way: Floats | None = None
    last: Floats | None = None
    clients: int = 1
    attackers: int = 1
    rule: str = "mean"
    trim: int = 0
    seed: int = 0
    radius: float = 0.0

    def generator(self) -> np.random.Generator:
        """Random numbers of this round, from their beginning: all colluders draw the same."""
        return np.random.default_rng([self.seed, self.round])

    def check(self, size: int) -> None:
        """Refuse what does not go with vectors of that size.

        Raises
        ------
        AdapterError
            If a shape does not fit.
        """
        shapes = {
            "own": (self.own, (len(self.own), size)),
            "honest": (self.honest, (-1 if self.honest is None else len(self.honest), size)),
            "first": (self.first, (size,)),
            "step": (self.step, (size,)),
            "way": (self.way, (size,)),
            "last": (self.last, (self.update,)),
        }
        for name, (array, shape) in shapes.items():
            if array is not None and array.shape != shape:
                raise AdapterError(
                    f"{name} has shape {array.shape}, with vectors of size {size} not {shape}",
                    cure="keep what is known of this run's adapter",
                )
