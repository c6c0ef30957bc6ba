"""Rules that combine bucket means one coordinate at a time.

Trimmed mean and median after Yin et al. 2018 (arXiv 1803.01498): up to ``trim`` attackers are
withstood by dropping the ``trim`` largest and smallest bucket means in each coordinate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.robust.networks import selection
from fedgrpo.robust.rules import register_rule


def without_ends(_: int, trim: int) -> str:
    """What a trimmed mean leaves out, in words."""
    count = "" if trim == 1 else f"{trim} "
    return f"each coordinate without its {count}lowest and {count}highest" if trim else ""


@register_rule("trimmed_mean", trimmed=lambda _, trim: trim, words=without_ends)
def trimmed_mean(bucket_means: NDArray[np.float64], trim: int) -> NDArray[np.float64]:
    """Mean without the ``trim`` largest and smallest values (arXiv 1803.01498, definition 2)."""
    return middle_mean(bucket_means, trim)


@register_rule("median", trimmed=lambda buckets, _: (buckets - 1) // 2)
def median(bucket_means: NDArray[np.float64], trim: int) -> NDArray[np.float64]:
    """Median, the mean of the one or two middle values (arXiv 1803.01498, definition 1)."""
    del trim
    return middle_mean(bucket_means, (len(bucket_means) - 1) // 2)


@register_rule("mean", robust=False, trimmed=lambda *_: 0)
def mean(bucket_means: NDArray[np.float64], trim: int) -> NDArray[np.float64]:
    """Plain mean, which a single attacker moves at will: for comparison."""
    del trim
    return middle_mean(bucket_means, 0)


def middle_mean(bucket_means: NDArray[np.float64], trimmed: int) -> NDArray[np.float64]:
    """Mean of each coordinate's middle values, without ``trimmed`` at either end; shape (d,)."""
    buckets = len(bucket_means)
    count = buckets - 2 * trimmed
    rows = _middle_rows(bucket_means, trimmed)
    total = rows[0].copy()
    with np.errstate(over="ignore"):
        for row in rows[1:]:
            total += row
    total /= count
    if not (finite := np.isfinite(total)).all():
        # Finite bucket means near the float64 limit overflow in the sum: divide those first.
        total[~finite] = sum(row[~finite] / count for row in rows)
    return total


def _middle_rows(block: NDArray[np.float64], trimmed: int) -> list[NDArray[np.float64]]:
    """Sort each column of a (B, c) block; all but the outer rows come back in ascending order.

    A sorting network compares whole rows, which numpy does with vector instructions: 9 times as
    fast as ``np.partition`` along the first axis for 10 buckets, and for 33 still twice as fast.
    """
    *rows, spare = np.concatenate([block, block[:1]])
    for low, high, wants_low, wants_high in selection(len(rows), trimmed):
        if not wants_high:
            np.minimum(rows[low], rows[high], out=rows[low])
        elif not wants_low:
            np.maximum(rows[low], rows[high], out=rows[high])
        else:
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
    return rows[trimmed : len(rows) - trimmed]
