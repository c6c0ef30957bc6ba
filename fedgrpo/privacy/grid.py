"""Contributions of units as whole numbers, whose sum is exact in any order.

A float sum rounds by what it holds already, so adding one unit can move it by more than the unit's
own share. Here each unit's clipped direction is rounded towards zero to a grid and summed as
integers: adding or removing one unit adds or removes exactly its own numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import PrivacyError

GRID_BITS = 40
"""Steps of the grid in C, and in 1, as a power of two: 1e-12 of the clipping norm."""
MOST_UNITS = 1 << (62 - GRID_BITS)
"""Units whose sum cannot overflow an int64."""
SLACK = 2.0**-20
"""Share of C that is kept free for the rounding of float64."""

_STEPS = float(1 << GRID_BITS)


@dataclass(frozen=True)
class GridSum:
    """What some units contribute, in steps of the grid. Sensitive as a whole."""

    direction: NDArray[np.int64]
    """int64, shape (d,): sum of clipped directions, in steps of C."""
    metrics: NDArray[np.int64]
    """int64, shape (k,): sum of metrics less 1/2 each."""
    indicator: int
    """Sum of clipping indicators less 1/2 each."""
    units: int

    @classmethod
    def nothing(cls, dimension: int, metrics: int) -> GridSum:
        """What no unit at all contributes: zeros for d coordinates and k metrics."""
        return cls(np.zeros(dimension, np.int64), np.zeros(metrics, np.int64), 0, 0)

    @classmethod
    def of_unit(
        cls, direction: NDArray[np.float64], metrics: NDArray[np.float64], clipping_norm: float
    ) -> GridSum:
        """Clip what one unit contributes and round it towards zero.

        Proof of the bound: the norm n is computed with a relative error below 2^-21 for any d up to
        2^31, the factor min(1, (1 - 2^-20) C / n) and each product with one below 2^-51. So the
        scaled direction is at most (1 - 2^-20)(1 + 2^-21)(1 + 2^-50) C < C long, and rounding each
        coordinate towards zero makes it no longer. A direction of zero norm says nothing about what
        a typical norm is: its indicator is 0.

        Parameters
        ----------
        direction:
            float64, shape (d,), before clipping. One that is not finite contributes nothing at all:
            no metrics either.
        metrics:
            float64, shape (k,). Clamped to [0, 1]; NaN counts as 1/2, which contributes nothing.
        clipping_norm:
            C > 0.
        """
        nothing = cls.nothing(direction.size, metrics.size)
        with np.errstate(over="ignore", invalid="ignore"):
            norm = float(np.linalg.norm(direction))
        if not math.isfinite(norm):
            return nothing
        factor = min(1.0, (1 - SLACK) * clipping_norm / max(norm, 1e-300)) / clipping_norm
        steps = np.trunc(direction * factor * _STEPS).astype(np.int64)
        centred = np.nan_to_num(np.clip(metrics, 0.0, 1.0) - 0.5, nan=0.0)
        told = np.trunc(centred * _STEPS).astype(np.int64)
        half = 1 << (GRID_BITS - 1)
        below = half if norm <= clipping_norm else -half
        return cls(steps, told, below if norm > 0 else 0, 1)

    def __add__(self, other: GridSum) -> GridSum:
        """Put two sums together, exactly; raises PrivacyError if they are of more units than an
        int64 can hold.
        """
        units = self.units + other.units
        if units > MOST_UNITS:
            raise PrivacyError(
                f"a sum of {units} units does not fit into 64 bits, {MOST_UNITS} do",
                cure="lower grpo.prompts_per_step",
            )
        return GridSum(
            self.direction + other.direction,
            self.metrics + other.metrics,
            self.indicator + other.indicator,
            units,
        )

    def floats(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Directions in C, metrics and indicator as numbers; exact below 2^13 units."""
        return self.direction / _STEPS, self.metrics / _STEPS, self.indicator / _STEPS


def grid_sum(
    directions: NDArray[np.float64], metrics: NDArray[np.float64], clipping_norm: float
) -> GridSum:
    """Sum what several units contribute: directions (n, d) before clipping, metrics (n, k)."""
    total = GridSum.nothing(directions.shape[1], metrics.shape[1])
    for direction, told in zip(directions, metrics, strict=True):
        total += GridSum.of_unit(direction, told, clipping_norm)
    return total
