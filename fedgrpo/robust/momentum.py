"""Momentum of clients: each sends a mean of its own updates in the place of the last one, so that
honest clients look alike.

An attacker hides in what honest clients differ by, and can push the same way round after round; no
rule that sees one round alone withstands that (arXiv 2012.10333). A mean over rounds keeps what
honest updates have in common and averages out the rest: with decay b, the spread shrinks to
``sqrt((1 - b) / (1 + b))`` of itself (arXiv 2205.12173), and with it what is left to hide in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Carried:
    """A client's mean of its own updates so far, and the one before, for a round that is repeated.

    Attributes
    ----------
    round:
        Of the last update.
    count:
        Updates so far, that one among them.
    mean, before:
        float64, shape (d,), in units of the clipping norm of their rounds. ``before`` is zero
        where there was none.
    """

    round: int
    count: int
    mean: Vector
    before: Vector


def carried(kept: Carried | None, round: int, update: Vector, decay: float) -> Carried:
    """The mean after one more update, in which each weighs ``decay`` times what the next one does.

    The weights sum up to 1 from the first update on, so it is no longer than the longest of them. A
    round without an update leaves it as it is. The same round again takes the place of itself.

    Parameters
    ----------
    kept:
        What was carried so far; None before the first update.
    round:
        From 1, not before the last one.
    update:
        float64, shape (d,).
    decay:
        From 0, the update alone, to below 1.
    """
    if kept is None:
        return Carried(round, 1, update, np.zeros_like(update))
    again = kept.round == round
    count, before = (kept.count, kept.before) if again else (kept.count + 1, kept.mean)
    if count == 1:
        return Carried(round, 1, update, before)
    weight = (1 - decay) / (1 - decay**count)
    return Carried(round, count, before + weight * (update - before), before)
