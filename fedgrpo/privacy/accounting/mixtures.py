"""Composition of releases whose worst case is a pair of mixtures of Gaussians on a line.

What Opacus' accountants know is one unit added or removed. Copies of a unit, and a unit that is
replaced by another one, have other pairs (:mod:`fedgrpo.privacy.accounting.neighbours`). Here their
privacy loss is put on a grid, every loss rounded up, and composed by Fourier transform; all that is
cut off counts as if it gave everything away. So the result is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.special import logsumexp, ndtr

Floats = NDArray[np.float64]

_POINTS = 2**17 + 1
"""Points at which densities are compared."""
_REACH = 12.0
"""Standard deviations beyond the outermost means; what lies outside has probability 4e-33."""
_STEP, _BIAS = 2e-4, 0.01
"""Largest step of the grid of losses, and how much rounding up may add to epsilon in all."""
_LARGEST_GRID = 2**21
_LARGEST_LOSS = 700.0
"""Loss whose exponential a float still holds."""
_COARSER = 10
"""How often the step may be doubled until the grid holds the composed loss."""
_CUT = 1e-3
"""Share of delta that may be lost at the grid's upper end."""
_TILTS = 2.0 ** np.arange(-4, 5)
"""Orders of the exponential moments that bound what leaves the grid."""


@dataclass(frozen=True)
class Pair:
    """Two distributions on a line, each a mixture of Gaussians of equal spread.

    Attributes
    ----------
    std:
        Standard deviation of every Gaussian, positive.
    upper, lower:
        ``(weight, mean)`` of each part. No mean of ``upper`` is below 0 and none of ``lower``
        above, so that their likelihood ratio grows along the line.
    """

    std: float
    upper: tuple[tuple[float, float], ...]
    lower: tuple[tuple[float, float], ...]

    def points(self) -> Floats:
        """Edges of cells that cover the line but for its far ends; shape (n,)."""
        means = [mean for _, mean in (*self.upper, *self.lower)]
        reach = _REACH * self.std
        return np.linspace(min(means) - reach, max(means) + reach, _POINTS)

    def losses(self, points: Floats) -> Floats:
        """Log of the likelihood ratio, upper over lower; shape (n,)."""
        return self._log_ratio(self.upper, points) - self._log_ratio(self.lower, points)

    def _log_ratio(self, parts: Sequence[tuple[float, float]], points: Floats) -> Floats:
        """Log density over that of the Gaussian at 0."""
        terms = [math.log(w) + (m * points - m * m / 2) / self.std**2 for w, m in parts]
        return np.asarray(logsumexp(np.array(terms), axis=0))

    def masses(self, parts: Sequence[tuple[float, float]], points: Floats) -> Floats:
        """Probability of each cell; shape (n - 1,)."""
        below = np.sum([w * ndtr((points - m) / self.std) for w, m in parts], axis=0)
        return np.asarray(np.maximum(np.diff(below), 0.0))


@dataclass(frozen=True)
class Losses:
    """Privacy losses of one release in one direction, rounded up to multiples of a step."""

    cells: NDArray[np.int64]
    """int64, shape (n,): loss over step."""
    masses: Floats
    """float64, shape (n,)."""


@dataclass(frozen=True)
class Curve:
    """How epsilon and delta of composed releases belong together, in one direction."""

    above: Floats
    """float64, shape (n,): probability of a loss in this cell or above, from loss 0 on."""
    discounted: Floats
    """float64, shape (n,): the same, each loss l weighed by e^-l."""
    step: float
    """Width of a cell."""
    lost: float
    """Probability that is not on the grid, or not exact."""

    def epsilon(self, delta: float) -> float:
        """Solve delta = sum of m (1 - e^(epsilon - l)) over losses l above epsilon, of mass m."""
        left = delta - self.lost
        if left <= 0:
            return math.inf
        # At the loss of a cell, its own mass counts nothing.
        deltas = self.above - np.exp(self.step * np.arange(len(self.above))) * self.discounted
        first = int(np.argmax(deltas <= left))
        if deltas[first] > left:
            return math.inf
        # Between two cells the sums are those of the upper one.
        return float(np.log((self.above[first] - left) / self.discounted[first])) if first else 0.0


def compose_pairs(history: Iterable[tuple[Pair, int]], delta: float) -> tuple[Curve, ...] | None:
    """Compose independent releases with these pairs, in both directions.

    If each release's own pair has, at every threshold, at least the hockey-stick divergence of what
    the release does to two neighbouring inputs, the composed pairs have at least that of all
    releases together, also where each was chosen after seeing those before (Zhu, Dong and Wang
    2022, arXiv 2106.08567, theorem 10).

    Parameters
    ----------
    history:
        Each pair with how often it occurs, at least once.
    delta:
        Least delta that the curves are good for.

    Returns
    -------
    tuple[Curve, ...] or None
        Of an upper bound each; None where no grid holds the losses.
    """
    given = list(history)
    finest = min(_STEP, _BIAS / sum(times for _, times in given))
    curves = []
    for swapped in (False, True):
        steps = (finest * 2**k for k in range(_COARSER))
        found = (_curve(given, swapped, step, delta) for step in steps)
        curves.append(next((curve for curve in found if curve), None))
    both = tuple(curve for curve in curves if curve)
    return both if len(both) == len(curves) else None


def _curve(
    history: Sequence[tuple[Pair, int]], swapped: bool, step: float, delta: float
) -> Curve | None:
    """Compose one direction; None if the largest grid of this step does not hold the losses."""
    counted = [(_rounded(pair, swapped, step), times) for pair, times in history]
    size = _size_of_grid(counted, step, delta)
    if size is None:
        return None
    total = math.prod(rfft(_on_grid(one, size)) ** times for one, times in counted)
    masses = np.maximum(irfft(total, size)[: size // 2], 0.0)
    weights = np.exp(-step * np.arange(size // 2))
    return Curve(
        np.cumsum(masses[::-1])[::-1],
        np.cumsum((masses * weights)[::-1])[::-1],
        step,
        _beyond(counted, step, size) + _round_off(size, sum(times for _, times in history)),
    )


def _rounded(pair: Pair, swapped: bool, step: float) -> Losses:
    """Losses at the edge of each cell where they are largest."""
    points = pair.points()
    losses = pair.losses(points)
    masses = pair.masses(pair.lower if swapped else pair.upper, points)
    largest = -losses[:-1] if swapped else losses[1:]
    return Losses(np.ceil(largest / step).astype(np.int64), masses)


def _size_of_grid(counted: Sequence[tuple[Losses, int]], step: float, delta: float) -> int | None:
    """Least power of two whose upper half holds the composed loss but for a part of delta."""
    size = 2**16
    while size <= _LARGEST_GRID and step * size <= 2 * _LARGEST_LOSS:
        held = all(int(np.abs(one.cells).max()) < size // 2 for one, _ in counted)
        if held and _beyond(counted, step, size) <= _CUT * delta:
            return size
        size *= 2
    return None


def _on_grid(one: Losses, size: int) -> Floats:
    """Masses on a circle of cells, negative losses from its end backwards; shape (size,)."""
    return np.asarray(np.bincount(one.cells % size, one.masses, size), dtype=np.float64)


def _beyond(counted: Sequence[tuple[Losses, int]], step: float, size: int) -> float:
    """Bound the probability that the composed loss passes the upper half (Chernoff).

    What passes its lower end reappears as a large loss, which is more and not less.
    """
    logs = np.zeros(len(_TILTS))
    for one, times in counted:
        with np.errstate(divide="ignore"):
            exponents = np.log(one.masses) + np.multiply.outer(_TILTS * step, one.cells)
        logs += times * logsumexp(exponents, axis=1)
    return float(np.exp(np.minimum(0.0, (logs - _TILTS * step * (size // 2)).min())))


def _round_off(size: int, releases: int) -> float:
    """Bound the error of a sum over the composed grid.

    A transform's error is at most log2(size) units of round-off in L2 norm, a power's as often as
    it has factors, and a sum of n values is off by at most sqrt(n) times their L2 error.
    """
    return 2.0**-52 * math.log2(size) * math.sqrt(size) * (releases + 2)
