"""How much of what is learned without noise a run can expect to keep, from runs that were measured.

The noise on an aggregate is told by R, its L2 norm over the clipping norm
(:meth:`~fedgrpo.privacy.accounting.budget.Cohort.noise_to_signal`): per trained value and in units
of the clipping norm that is R / sqrt(d). At small epsilon the noise multiplier grows with the
sampling rate, so a larger batch changes R little; clients, their prompts and d do.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace

import numpy as np

from fedgrpo.privacy.accounting.budget import Budget, Cohort
from fedgrpo.privacy.accounting.guarantees import prompt_epsilon

RATIOS = (0.0, 0.183, 0.258, 0.460)
SHARES = (1.0, 0.80, 0.71, 0.62)
"""Which share of the gain without noise was kept at each R."""

SOURCE = (
    "the shipped model and tasks, FFA-LoRA of 3,968 values, norm-checked mean of 12 clients, 16 "
    "rounds of 24 prompts, no attackers, one to three seeds"
)
"""What was measured for :data:`SHARES`: docs/small-epsilon.md."""

SIGNAL = 0.16
"""Length of the mean clipped gradient of a prompt there, in clipping norms, in the first round;
0.04 after eight rounds."""

WANTED = 0.8
"""Share of the gain for which clients and prompts are sought."""

_MOST_CLIENTS, _MOST_PROMPTS = 10**6, 10**7
_PRECISION = 1.01
"""Relative precision of a rate that is sought: a trial takes 0.1 s."""


def expected_share(ratio: float) -> float | None:
    """Share of the gain that is kept at R, on straight lines between measured points; None beyond
    the largest R that was measured.
    """
    return float(np.interp(ratio, RATIOS, SHARES)) if ratio <= RATIOS[-1] else None


def clients_for(cohort: Cohort, noise_multiplier: float, dimension: int) -> int | None:
    """Least clients in a round with which :data:`WANTED` is expected; None beyond a million."""

    def enough(clients: int) -> bool:
        seen = replace(cohort, clients=clients)
        return seen.noise_to_signal(noise_multiplier, dimension) <= _wanted()

    least = 2 * cohort.trim * cohort.bucket_size + 1
    if not enough(_MOST_CLIENTS):
        return None
    return least + bisect_left(range(least, _MOST_CLIENTS), True, key=enough)


def prompts_for(budget: Budget, cohort: Cohort, dimension: int) -> int | None:
    """Least prompts of every client with which :data:`WANTED` is expected at the same epsilon,
    rounds and prompts a round; None if even ten million are too few.
    """
    needed = (
        budget.noise_multiplier
        * _wanted()
        / cohort.noise_to_signal(budget.noise_multiplier, dimension)
    )

    def affordable(rate: float) -> bool:
        spent = prompt_epsilon(needed, rate, budget.rounds, budget.delta)
        return spent <= budget.epsilon * (1 + 1e-6)

    low, high = cohort.prompts / _MOST_PROMPTS, 1.0
    if not affordable(low):
        return None
    while high / low > _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if affordable(middle) else (low, middle)
    return math.ceil(cohort.prompts / low)


def _wanted() -> float:
    """Largest R at which :data:`WANTED` is expected."""
    return float(np.interp(-WANTED, [-share for share in SHARES], RATIOS))
