"""What it costs that a client's time is sized for a number of units that may be exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable

OVERFLOW = 1e-12
"""Probability with which a release samples more units than its client's time is sized for."""

_STEP = 1e-3
"""How far beyond a lower bound a solution is looked for."""
_MOST_STEPS = 20
_OVER_ALL = 700.0
"""An epsilon beyond all that leave something of a delta, whose power a float still holds."""


def with_overflow(cost: Callable[[float], float], releases: int, delta: float) -> float:
    """Return epsilon at ``delta - (1 + e^epsilon) p``, with p the sum over these releases.

    A release that samples more units than its time is sized for leaves some out, and then one unit
    can displace another. Let M and N be two runs that differ in one unit, and M' and N' the same
    two without a limit of time. M differs from M' with probability p at most, and N from N', so for
    every set S of outputs P[M in S] <= P[M' in S] + p <= e^epsilon P[N' in S] + delta' + p <=
    e^epsilon P[N in S] + delta' + (1 + e^epsilon) p. The accountant knows M' and N', and is asked
    for epsilon at delta'.

    From an epsilon of about ln(delta / p) on (12 for 50 releases at delta 1e-5), nothing of delta
    would be left. There, a bound is taken that asks more of the sampling: which units are sampled
    beside the one in question does not depend on it, so whether they leave it no place can be told
    to the adversary. If they do, it matters only where it is sampled itself, which both together
    has probability p at most; if not, nobody is displaced. So epsilon is that at ``delta - p``.

    Parameters
    ----------
    cost:
        Epsilon of the releases at a delta, without a limit of time; it falls with delta.
    releases:
        Those that have one.
    delta:
        In (0, 1).

    Returns
    -------
    float
        Infinity if ``delta`` is not above p.
    """
    failure = OVERFLOW * releases
    found = cost(delta)
    if not failure:
        return found
    if failure >= delta:
        return math.inf
    # The right side grows with epsilon, so steps from a lower bound never pass the least solution;
    # a candidate is one as soon as what it leaves of delta costs no more.
    for _ in range(_MOST_STEPS):
        candidate = found + _STEP
        if (left := left_of(delta, failure, candidate)) <= 0:
            break
        if (found := cost(left)) <= candidate:
            return found
    return cost(delta - failure)


def left_of(delta: float, failure: float, epsilon: float) -> float:
    """Return ``delta - (1 + e^epsilon) failure``."""
    return delta - (1 + math.exp(min(epsilon, _OVER_ALL))) * failure
