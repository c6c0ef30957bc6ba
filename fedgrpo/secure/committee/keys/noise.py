r"""The committee's noise: discrete Gaussian, a function of keys that no member chose.

Bits come from AES-256-CTR and everything else is integer arithmetic or a correctly rounded
operation, so that the three keepers of a key draw the same noise on any machine, and nobody can
attack the low bits of a float (Mironov 2012).

The discrete Gaussian of scale :math:`\sigma` has :math:`P(x) \propto e^{-x^2 / 2\sigma^2}` on the
integers. Added to an integer vector of L2 sensitivity :math:`\Delta` it is
:math:`\Delta^2 / 2\sigma^2`-zCDP, as the Gaussian is, with variance at most :math:`\sigma^2`
(Canonne, Kamath, Steinke 2020, arXiv 2004.00010).
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.crypto import stream_words
from fedgrpo.ground.errors import PrivacyError

MIN_SHARE_SIGMA = 4.0
"""Least scale of a share, in steps of the encoding: see :func:`effective_noise`."""
MIN_SIGMA = 1.0
"""Least scale of one draw, in steps."""
MAX_SIGMA = 2.0**28
"""Greatest scale of one draw, in steps; keeps every draw far inside an int64."""
_TAIL = 12
"""A table ends at this many scales."""
_LARGEST_TABLE_SIGMA = 2.0**10
_SMOOTH = 4
"""Beyond, scale of the fine part over the factor of the coarse one."""
_GUIDE_BITS = 16
_BITS = 127
"""Bits of a threshold, and of the uniform number compared with it; one more is the sign."""
_FRACTION = 192
"""Fraction bits of the weights of which thresholds are made."""


@dataclass(frozen=True)
class EffectiveNoise:
    """Noise multipliers that remain towards each observer of the opened result."""

    outsider: float
    """Towards everybody who holds none of the noise keys."""
    member: float
    """Towards one curious member, who can subtract three of the four shares."""


def effective_noise(noise_multiplier: float) -> EffectiveNoise:
    r"""Return what the joint noise is worth to an outsider and to one curious member.

    The opened result is ``sum + nu_0 + nu_1 + nu_2 + nu_3`` with independent discrete Gaussian
    ``nu_m`` of scale ``sigma / 2`` from key ``k_m``, which all members but m hold, and ``sigma =
    noise_multiplier * sensitivity``.

    *Outsider*: four shares, variance ``4 (sigma / 2)^2 = sigma^2``. The sum of discrete Gaussians
    is within a factor :math:`e^{\pm\tau}` of the discrete Gaussian of the summed variance at every
    point, :math:`\tau \le 10 \sum_{j=1}^{3} e^{-2\pi^2 s^2 j / (j + 1)}` (Kairouz, Liu, Steinke
    2021, arXiv 2102.06387): at the least share admitted here, s = 4 steps, below 1e-67 a
    coordinate. Hence ``noise_multiplier``.

    *One member m*: holds the three keys other than ``k_m`` and subtracts those shares exactly.
    ``nu_m`` remains, an AES-CTR stream under a key it never had: scale ``sigma / 2``, hence
    ``noise_multiplier / 2``. Two colluding members hold all four keys: nothing remains, and they
    see all inputs anyway.

    A member cannot make it less: keys are coin-tossed by their keepers
    (:mod:`fedgrpo.secure.committee.keys.identity`), and a share of the noise is a component of a
    shared value that three members compute alike, without any message to falsify.

    Parameters
    ----------
    noise_multiplier:
        Standard deviation of the joint noise over the L2 sensitivity, at least 0.

    Raises
    ------
    PrivacyError
        If it is negative or not finite.
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier >= 0):
        raise PrivacyError(
            f"noise multiplier {noise_multiplier} is not a finite number of at least 0",
            cure="set privacy.noise_multiplier to the noise over the clipping norm",
        )
    return EffectiveNoise(outsider=noise_multiplier, member=noise_multiplier / 2)


def share_sigma(sigma: float) -> float:
    """Scale of each of the four shares, for joint noise of scale ``sigma``; both in steps.

    Raises
    ------
    PrivacyError
        If a share would be below :data:`MIN_SHARE_SIGMA`: the sum would be no Gaussian.
    """
    if not sigma / 2 >= MIN_SHARE_SIGMA:
        raise PrivacyError(
            f"joint noise of {sigma} steps of the encoding is too coarse, least is "
            f"{2 * MIN_SHARE_SIGMA}",
            cure="encode with more bits, or raise privacy.noise_multiplier",
        )
    return sigma / 2


def discrete_gaussian(key: bytes, sigma: float, count: int) -> NDArray[np.int64]:
    r"""Draw discrete Gaussian noise from a key.

    Adversary: whoever lacks the key sees noise that no efficient test tells from the ideal one.
    Keepers of the key know the noise. The number of key bits drawn, hence the work, depends on
    ``count`` and ``sigma`` only; look-ups are not constant in time.

    Up to a scale of 1024 a 127-bit uniform number is looked up in the table of the distribution of
    \|X\|, cut at ``T = 12 sigma``; another bit is the sign. The cut costs, in total variation,
    :math:`P(|X| > T) \le 2 e^{-T^2/2\sigma^2} \le 2^{-102}`, as :math:`E e^{tX} \le
    e^{t^2\sigma^2/2}` (a Gaussian summed over shifted integers is never more than over the integers
    themselves, by Poisson summation; then Chernoff). Rounding thresholds down costs at most
    ``2**-127`` each, at most ``2**-107`` in all.

    Above it X is ``k Y + Z`` for independent Y and Z from two small tables with ``k^2 s_Y^2 + s_Z^2
    = sigma^2``. Completing the square, :math:`P(kY + Z = v) \propto e^{-v^2/2\sigma^2} \sum_y
    e^{-(y - c_v)^2/2s^2}` with ``s = s_Y s_Z / sigma``; the sum depends on its shift c by a factor
    of at most :math:`1 \pm 4e^{-2\pi^2s^2}`, which at ``s >= 3.9`` is ``1 +- 2**-429`` (Peikert
    2010, doi 10.1007/978-3-642-14623-7_5, theorem 3.1, in one dimension).

    In all a draw is within ``2**-100`` of the ideal in total variation, or a round of 2^20
    coordinates and four shares within ``2**-78``: add that to delta, where it vanishes.

    Parameters
    ----------
    key:
        32 bytes, used for nothing else.
    sigma:
        Scale in steps of the encoding, from 1 to 2^28.
    count:
        Number of draws.

    Returns
    -------
    NDArray[np.int64]
        Shape (count,), each of magnitude at most :func:`largest_noise`.

    Raises
    ------
    PrivacyError
        If ``sigma`` is out of range.
    """
    _check_sigma(sigma)
    if sigma <= _LARGEST_TABLE_SIGMA:
        return _look_up(stream_words(key, 4 * count), sigma)
    factor, coarse, fine = _split(sigma)
    words = stream_words(key, 8 * count)
    noise = _look_up(words[: 4 * count], coarse)
    noise *= factor
    noise += _look_up(words[4 * count :], fine)
    return noise


def largest_noise(sigma: float) -> int:
    """Magnitude, in steps, that a draw of scale ``sigma`` never exceeds; raises PrivacyError if
    ``sigma`` is out of range.
    """
    _check_sigma(sigma)
    if sigma <= _LARGEST_TABLE_SIGMA:
        return _cut(sigma)
    factor, coarse, fine = _split(sigma)
    return factor * _cut(coarse) + _cut(fine)


def _split(sigma: float) -> tuple[int, float, float]:
    """Factor k and scales of Y and Z with ``k Y + Z`` of scale sigma, up to 1e-15 of it."""
    factor = math.isqrt(int(sigma))
    fine = float(_SMOOTH * factor)
    return factor, math.sqrt(sigma * sigma - fine * fine) / factor, fine


def _cut(sigma: float) -> int:
    return math.ceil(_TAIL * sigma)


def _check_sigma(sigma: float) -> None:
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise PrivacyError(
            f"noise of scale {sigma} steps cannot be drawn: it must be in [1, 2**28]",
            cure="leave the noise out where there is none, or encode with fewer bits",
        )


def _look_up(words: NDArray[np.uint32], sigma: float) -> NDArray[np.int64]:
    """Turn four uint32 words a draw into draws: 127 bits of magnitude, one of sign.

    The magnitude is the number of thresholds not above the uniform number. Its top 16 bits say
    between which two counts to search; most often there is nothing left to search for.
    """
    table = _table(sigma)
    high, low = words.astype("<u4", copy=False).view("<u8").reshape(2, -1)
    top = (high >> np.uint64(64 - _GUIDE_BITS)).astype(np.intp)
    magnitude = table.guide[top]
    open_ = np.flatnonzero(magnitude != table.guide[top + 1])
    magnitude[open_] = np.searchsorted(table.high, high[open_], side="left")
    # Where the high words are equal, low words decide: about once in 2**50 draws.
    ties = table.high[np.minimum(magnitude[open_], len(table.high) - 1)] == high[open_]
    for at in open_[ties]:
        last = int(np.searchsorted(table.high, high[at], side="right"))
        span = table.low[magnitude[at] : last]
        magnitude[at] += int(np.searchsorted(span, low[at] >> np.uint64(1), side="right"))
    sign = 1 - 2 * (low & np.uint64(1)).astype(np.int64)
    return np.asarray(magnitude * sign, dtype=np.int64)


@dataclass(frozen=True)
class _Table:
    """Thresholds ``floor(2**127 P(|X| <= x))`` for x = 0 .. T - 1, ascending."""

    high: NDArray[np.uint64]
    """Their high 64 bits, shape (T,)."""
    low: NDArray[np.uint64]
    """Their low 63 bits, shape (T,)."""
    guide: NDArray[np.int64]
    """How many have top 16 bits below i, for i = 0 .. 2^16; shape (2^16 + 1,)."""


@lru_cache(maxsize=8)
def _table(sigma: float) -> _Table:
    cut = _cut(sigma)
    total = sum(_weights(sigma, cut))
    inverse = (1 << (_BITS + 2 * _FRACTION)) // total
    cumulative = 0
    chunks = bytearray()
    for weight in _weights(sigma, cut - 1):
        cumulative += weight
        threshold = cumulative * inverse >> 2 * _FRACTION
        chunks += (threshold >> 63 | (threshold & (1 << 63) - 1) << 64).to_bytes(16, "little")
    words = np.frombuffer(bytes(chunks), dtype="<u8")
    high, low = np.ascontiguousarray(words[0::2]), np.ascontiguousarray(words[1::2])
    tops = np.arange((1 << _GUIDE_BITS) + 1, dtype=np.uint64)
    guide = np.searchsorted(high >> np.uint64(64 - _GUIDE_BITS), tops, side="left")
    return _Table(high, low, guide.astype(np.int64))


def _weights(sigma: float, last: int) -> Iterator[int]:
    """Weights of |X| = 0 .. last in fixed point: 1, then ``2 exp(-x^2 / 2 sigma^2)``.

    Each is the one before times a ratio, and the ratio falls by a constant factor; ``decimal``
    rounds exp correctly, so that every machine gets the same integers. Errors grow with the square
    of ``last``, to below ``2**-150``.
    """
    with decimal.localcontext() as context:
        context.prec = 80
        variance = decimal.Decimal(sigma) ** 2
        scale = decimal.Decimal(1 << _FRACTION)
        ratio = int((-1 / (2 * variance)).exp() * scale)
        fall = int((-1 / variance).exp() * scale)
    weight = 2 << _FRACTION
    yield 1 << _FRACTION
    for _ in range(last):
        weight = weight * ratio >> _FRACTION
        ratio = ratio * fall >> _FRACTION
        yield weight
