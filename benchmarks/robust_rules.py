"""Trimmed mean of bucket means: this package against Flower's FedTrimmedAvg, taking turns.

Prints one JSON line: median milliseconds of either and the largest difference between their
results.

Usage: ``python benchmarks/robust_rules.py [--buckets 10] [--trim 2] [--coordinates 1000000]
[--repeats 7]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from numpy.typing import NDArray

from fedgrpo.robust import combine

Array = NDArray[np.float64]


def timed(work: Callable[[], Array]) -> tuple[float, Array]:
    start = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - start), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buckets", type=int, default=10)
    parser.add_argument("--trim", type=int, default=2)
    parser.add_argument("--coordinates", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    means = np.random.default_rng(0).standard_normal((args.buckets, args.coordinates))
    share = (args.trim + 0.25) / args.buckets  # Flower trims int(share * buckets)
    ours, theirs, difference = [], [], 0.0
    for _ in range(args.repeats):
        our_ms, our_result = timed(lambda: combine("trimmed_mean", means, args.trim))
        their_ms, their_result = timed(lambda: trim_mean(means, share))
        ours.append(our_ms)
        theirs.append(their_ms)
        difference = max(difference, float(np.abs(our_result - their_result).max()))
    report = {
        "benchmark": "robust_rules",
        **vars(args),
        "ours_ms": round(float(np.median(ours)), 2),
        "flower_ms": round(float(np.median(theirs)), 2),
        "flower_version": version("flwr"),
        "largest_difference": difference,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
