"""An empirical lower bound on epsilon from one run: what an attacker really finds out.

Canaries are planted by independent fair coins, the run happens once, and an attacker guesses from
its output which of them were there (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846). More right
guesses than (epsilon, delta) allows would refute the stated epsilon, so a bound above it means that
noise, clipping or accounting is broken. A bound below it proves nothing: attacks may be weak.

Where sampling or many rounds do most of the work, guesses about single canaries miss what is
broken, so :mod:`fedgrpo.privacy.inspection` looks at noise and coins themselves. Runs for both are
those of :mod:`fedgrpo.federation.audit.canaries`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from fedgrpo.ground.errors import PrivacyError

Floats = NDArray[np.float64]

Mechanism = Callable[[NDArray[np.bool_]], Floats]
"""``included (m,) -> score of each canary (m,)``: a run, and what an attacker makes of it."""


@dataclass(frozen=True)
class Audit:
    """What came of one run.

    Attributes
    ----------
    canaries, guesses, correct:
        How many were planted or not, guessed about, and guessed rightly.
    epsilon:
        Lower bound on epsilon at the delta that was asked about.
    """

    canaries: int
    guesses: int
    correct: int
    epsilon: float


def audit(
    mechanism: Mechanism,
    canaries: int,
    guesses: int,
    *,
    delta: float,
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> Audit:
    """Plant canaries, run once, and bound epsilon from below.

    The attacker takes the ``guesses`` / 2 highest scores for planted and as many lowest for not
    planted, and says nothing about those between. Raises PrivacyError if the numbers do not fit, or
    the mechanism gives another number of scores.

    Parameters
    ----------
    mechanism:
        The run under audit.
    canaries:
        m, at least ``guesses``.
    guesses:
        r, fixed before the run; even.
    delta:
        Of the statement that is tried, in [0, 1).
    rng:
        Of the planting coins. They are the experiment's, no secret of anybody.
    confidence:
        Probability, over coins and mechanism, with which the bound is a true one.
    """
    included = rng.integers(2, size=canaries).astype(np.bool_)
    scores = mechanism(included)
    if scores.shape != (canaries,) or not 2 <= guesses <= canaries or guesses % 2:
        raise PrivacyError(
            f"{guesses} guesses about {canaries} canaries from scores of shape {scores.shape}",
            cure="score each canary, and make an even number of guesses about some of them",
        )
    order = np.argsort(scores)
    lowest, highest = order[: guesses // 2], order[-(guesses // 2) :]
    correct = int(included[highest].sum() + (~included[lowest]).sum())
    bound = epsilon_lower_bound(canaries, guesses, correct, delta=delta, confidence=confidence)
    return Audit(canaries, guesses, correct, bound)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest epsilon that so many right guesses refute (arXiv 2305.08846, section 5).

    Parameters
    ----------
    canaries, guesses, correct:
        m >= r >= v >= 0.
    delta:
        In [0, 1).
    confidence:
        In (0, 1).

    Returns
    -------
    float
        0 where nothing is refuted.
    """
    level = 1 - confidence
    if _p_value(canaries, guesses, correct, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, 1.0
    while _p_value(canaries, guesses, correct, high, delta) < level:
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        refuted = _p_value(canaries, guesses, correct, middle, delta) < level
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Largest probability of so many right guesses under (epsilon, delta): theorem 5.2.

    Pure epsilon: right guesses are dominated by coins of bias e^eps / (1 + e^eps), P[Binomial >=
    v]. Delta adds at most 2 m delta max_i P[v > Binomial >= v - i] / i.
    """
    bias = 1 / (1 + math.exp(-epsilon))
    beyond = float(binom.sf(correct - 1, guesses, bias))
    steps = np.arange(1, correct + 1)
    just_below = np.cumsum(binom.pmf(correct - steps, guesses, bias))
    worst = float((just_below / steps).max(initial=0.0))
    return min(1.0, beyond + 2 * canaries * delta * worst)
