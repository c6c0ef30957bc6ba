"""Whether noise that is correlated over rounds beats secret sampling at a small epsilon.

Banded matrix factorisation (arXiv 2306.08153): a prompt is in one of b parts, each of which takes
its turn every b rounds, and is sampled there at b times the rate. One prompt then meets T / b
releases of noise that b rounds share, so that b = 1 is independent noise with Poisson sampling and
b = T is each prompt once, without amplification. The error is that of what the model sums up: the
noise in the sum of the first t steps, root mean square over t, per trained value.

Usage::

    python benchmarks/correlated_noise.py    # 25 s of a core; writes results/correlated_noise.csv
"""

from __future__ import annotations

import csv
import math
from itertools import product
from pathlib import Path

import numpy as np

from fedgrpo.privacy import epsilon_gaussian, epsilon_subsampled

CSV = Path(__file__).parent / "results" / "correlated_noise.csv"
COLUMNS = ("epsilon", "per_round", "bands", "noise_multiplier", "error")
CLIENTS, PROMPTS, ROUNDS, DELTA = 12, 4000, 12, 1e-5
ALL_IN_TURN = round(PROMPTS / ROUNDS)
"""Prompts of a client and round where each is taken once."""
CASES = (*product((64,), (1, 2, 3, 4, 6)), (ALL_IN_TURN, 1), (ALL_IN_TURN, ROUNDS))
"""Prompts of a client and round, and bands."""
PRECISION = 1.005


def prefix_error(bands: int) -> float:
    """Root mean square over t of the noise in the first t steps' sum, for noise of multiplier 1.

    The strategy matrix C is the square root of the matrix of prefix sums (arXiv 2202.11205), cut
    after ``bands`` diagonals, each column of length 1; what is released has noise C^-1 z.
    """
    root = [math.comb(2 * k, k) / 4**k for k in range(bands)]
    strategy = sum(c * np.eye(ROUNDS, k=-k) for k, c in enumerate(root))
    strategy = strategy / np.linalg.norm(strategy, axis=0)
    sums = np.tril(np.ones((ROUNDS, ROUNDS))) @ np.linalg.inv(strategy)
    return float(np.linalg.norm(sums) / math.sqrt(ROUNDS))


def noise_for(epsilon: float, rate: float, times: int) -> float:
    """Least noise multiplier of that many releases, from above."""

    def cost(noise: float) -> float:
        if rate >= 1:
            return epsilon_gaussian(noise, times, DELTA)
        return epsilon_subsampled(noise, rate, times, DELTA)

    low, high = 0.3, 300.0
    while high / low > PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if cost(middle) <= epsilon else (middle, high)
    return high


def measured(epsilon: float, per_round: int, bands: int) -> tuple[float, float]:
    """Noise multiplier and error."""
    rate = 1.0 if bands == ROUNDS else bands * per_round / PROMPTS
    noise = noise_for(epsilon, rate, ROUNDS // bands)
    return noise, noise * prefix_error(bands) / (per_round * CLIENTS)


def main() -> None:
    with CSV.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for epsilon, (per_round, bands) in product((0.1, 1.0), CASES):
            noise, error = measured(epsilon, per_round, bands)
            writer.writerow((epsilon, per_round, bands, f"{noise:.4g}", f"{error:.4g}"))


if __name__ == "__main__":
    main()
