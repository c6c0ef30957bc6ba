"""Letting the clipping norm follow a quantile of the holders' update norms."""

from __future__ import annotations

import math

from fedgrpo.errors import PrivacyError

_RANGE = 10.0
"""C stays within this factor of its start, so that a run of odd rounds neither silences nor
unbounds the holders."""


def next_clipping_norm(
    current: float, share_below: float, *, quantile: float, rate: float, start: float
) -> float:
    """Return the next round's C (Andrew et al. 2021, arXiv 1905.03871, geometric update).

    ``share_below`` must be read from what the round released anyway
    (:func:`fedgrpo.privacy.read_aggregate`), where the indicators carry noise; then C is
    post-processing and costs no privacy.

    Parameters
    ----------
    current:
        C of the round that just ended, positive.
    share_below:
        Share of holders whose update norm was at most ``current``. Noise or lying holders may push
        it out of [0, 1]; it is clamped, so liars together move C by no more than their number.
    quantile:
        Share that should be at or below C, in (0, 1).
    rate:
        Learning rate of log C, positive.
    start:
        C of the first round, positive. The result stays within [start / 10, 10 start].

    Returns
    -------
    float
        Next C.

    Raises
    ------
    PrivacyError
        If an argument is not finite, or ``current`` or ``start`` is not positive.
    """
    if not (math.isfinite(share_below) and 0 < current < math.inf and 0 < start < math.inf):
        raise PrivacyError(
            f"no clipping norm follows from C = {current}, share below = {share_below}, "
            f"start = {start}",
            cure="take the share from read_aggregate and C from the round before",
        )
    share = min(max(share_below, 0.0), 1.0)
    # The indicator is 1 when norm <= C. Too many below means that C is too large, so the exponent's
    # sign is minus; with the opposite indicator ("was clipped") the same formula would run away
    # from the quantile.
    following = current * math.exp(-rate * (share - quantile))
    return min(max(following, start / _RANGE), start * _RANGE)
