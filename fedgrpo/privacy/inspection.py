"""Direct checks of what a run's releases look like: noise, sampling, clipping, and that no round
repeats the randomness of another.

Everything is in units of what one sampled unit of full length moves, as the adversary sees it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, norm

Floats = NDArray[np.float64]

LEVEL = 1e-6
"""Probability with which a check of a sound run fails."""

_SPARE = 0.05
"""Share by which noise may be larger than it must, for what rounding adds to sensitivity."""


def noise_faults(noise: Floats, std: float) -> list[str]:
    """Hold what is released of nothing against the noise that is claimed.

    Parameters
    ----------
    noise:
        Shape (T, d): T rounds to which nobody contributed anything.
    std:
        Claimed standard deviation.

    Returns
    -------
    list of str
        One sentence for each fault.
    """
    rounds, dimension = noise.shape
    energy = float((noise**2).sum()) / std**2
    low, high = chi2.ppf([LEVEL / 2, 1 - LEVEL / 2], noise.size)
    found = []
    if not low <= energy <= high * (1 + _SPARE) ** 2:
        spread = np.sqrt(energy / noise.size)
        found.append(f"the noise has {spread:.3f} times the claimed standard deviation")
    pairs = list(combinations(range(rounds), 2))
    limit = norm.isf(LEVEL / (2 * len(pairs)))
    for a, b in pairs:
        # Of independent Gaussians, up to terms of order 1 / d, which the limit dwarfs.
        alike = float(noise[a] @ noise[b]) / max(float((noise[a] ** 2).sum()), 1e-300)
        if abs(alike) * np.sqrt(dimension) > limit * np.sqrt(2):
            found.append(f"the noise of rounds {a + 1} and {b + 1} has correlation {alike:.2f}")
    return found


def sampling_faults(sizes: Floats, noise: float, rate: float) -> list[str]:
    """Hold what single units contributed, hardly noised, against clipping, rate and independence.

    Parameters
    ----------
    sizes:
        Shape (T, m): of m units of more than full length, T rounds. About 0 where a unit was not
        sampled.
    noise:
        Standard deviation of the noise on a size, well below 1.
    rate:
        Claimed probability with which a unit is sampled in a round.

    Returns
    -------
    list of str
        One sentence for each fault.
    """
    sampled = sizes > 0.5
    return [
        *_clipping_faults(sizes[sampled], noise),
        *_rate_faults(sampled, rate),
        *(_coin_faults(sampled, rate) if rate < 1 else ()),
    ]


def _clipping_faults(sizes: Floats, noise: float) -> list[str]:
    slack = noise * float(norm.isf(LEVEL / (2 * max(sizes.size, 1)))) + 1e-3
    if sizes.size and (largest := float(sizes.max())) > 1 + slack:
        return [f"a unit contributed {largest:.3f} times what it may"]
    return []


def _rate_faults(sampled: NDArray[np.bool_], rate: float) -> list[str]:
    count = int(sampled.sum())
    if binomtest(count, sampled.size, rate).pvalue > LEVEL:
        return []
    return [f"units were sampled at a rate of {count / sampled.size:.3f} instead of {rate:.3f}"]


def _coin_faults(sampled: NDArray[np.bool_], rate: float) -> list[str]:
    """Rounds whose samples agree more or less often than independent coins do."""
    pairs = list(combinations(range(len(sampled)), 2))
    expected = rate**2 + (1 - rate) ** 2
    return [
        f"the samples of rounds {a + 1} and {b + 1} agree in {agreed} of {sampled.shape[1]} units"
        for a, b in pairs
        for agreed in [int((sampled[a] == sampled[b]).sum())]
        if binomtest(agreed, sampled.shape[1], expected).pvalue < LEVEL / len(pairs)
    ]
