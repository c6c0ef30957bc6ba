"""Letting the clipping norm follow a quantile of norms (Andrew et al. 2021, arXiv 1905.03871).

Each unit (a client's update, or one prompt's gradient) says in one bit whether its norm was at most
C. The bits are counted under noise, and C moves towards the quantile. The count is part of the
release, so its noise is split off the same budget: see :func:`indicator_share`.
"""

from __future__ import annotations

import math

from fedgrpo.ground.errors import PrivacyError

RANGE = 10.0
"""C stays within this factor of its start, so that a run of odd rounds neither silences nor
unbounds the clients."""


def count_noise(bits: int, noise_multiplier: float) -> float:
    """Return sigma_b, the standard deviation of the noise on a count of bits.

    A twentieth of the bits, as published, but at least 2 z: with less, the count would take more
    than a sixteenth of the budget (and below z / 2 all of it), as it would in small cohorts.

    Parameters
    ----------
    bits:
        Bits under one draw of noise, at least 1.
    noise_multiplier:
        z, positive.
    """
    return max(bits / 20, 2 * noise_multiplier)


def indicator_share(bits: int, noise_multiplier: float) -> float:
    """Return the share of the squared sensitivity that the centred bit gets, at most 1/16.

    A bit less 1/2 has sensitivity 1/2. In a vector of sensitivity 1 under noise z, scaled to the
    share s it is multiplied by 2 sqrt(s), and reading it back divides the noise by as much: sigma_b
    = z / (2 sqrt(s)), so s = (z / (2 sigma_b))^2. The update keeps 1 - s, hence bears z_delta = z /
    sqrt(1 - s) = (z^-2 - (2 sigma_b)^-2)^(-1/2): theorem 1 of arXiv 1905.03871. At s = 1/16 that is
    3.3 % more noise.

    Parameters
    ----------
    bits, noise_multiplier:
        As for :func:`count_noise`.
    """
    return (noise_multiplier / (2 * count_noise(bits, noise_multiplier))) ** 2


def within_range(clipping_norm: float, start: float) -> bool:
    """Whether C can have become this from its start, as :func:`next_clipping_norm` moves it; never
    of NaN.
    """
    return start / RANGE <= clipping_norm <= start * RANGE


def next_clipping_norm(
    current: float, share_below: float, *, quantile: float, rate: float, start: float
) -> float:
    """Return the next round's C (Andrew et al. 2021, arXiv 1905.03871, geometric update).

    ``share_below`` must be read from what the round released anyway
    (:func:`fedgrpo.privacy.read_aggregate`), where the indicators carry noise; then C is
    post-processing and costs no privacy. Raises PrivacyError if an argument is not finite, or
    ``current`` or ``start`` is not positive.

    Parameters
    ----------
    current:
        C of the round that just ended, positive.
    share_below:
        Share of units whose norm was at most ``current``. Noise or lying clients may push it out of
        [0, 1]; it is clamped, so liars together move C by no more than their number.
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
    return min(max(following, start / RANGE), start * RANGE)
