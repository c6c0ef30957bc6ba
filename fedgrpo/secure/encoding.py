"""Fixed-point numbers modulo 2^32, the ring in which masks are added.

A float x becomes the integer nearest to x * 2^bits, in two's complement. Sums modulo 2^32 are then
exact integer sums, as long as the true sum fits an int32; :func:`fraction_bits` picks the finest
grid for which it always does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError

_LARGEST = 2**31 - 1


def fraction_bits(members: int, bound: float) -> int:
    """Return the largest number of fraction bits at which a bucket's sum cannot overflow; raises
    ProtocolError if ``members`` or ``bound`` is out of range.

    Parameters
    ----------
    members:
        Vectors that are summed, at least 1.
    bound:
        Largest absolute value of one coordinate of one vector, positive and finite.

    Returns
    -------
    int
        Largest ``f`` with ``members * round(bound * 2**f) <= 2**31 - 1``; negative where ``bound``
        is beyond int32.
    """
    if members < 1:
        raise ProtocolError(
            f"a sum of {members} vectors has no encoding", cure="sum at least one vector"
        )
    _check_bound(bound)
    bits = math.floor(math.log2(_LARGEST) - math.log2(members) - math.log2(bound)) + 1
    while members * _largest_code(bits, bound) > _LARGEST:
        bits -= 1
    return bits


def encode(values: NDArray[np.float64], bits: int, bound: float) -> NDArray[np.uint32]:
    """Encode a vector as fixed-point integers modulo 2^32.

    Saturating is harmless to honest clients: the bound is chosen so that what they send, clipped
    and noised, lies within it. Where noise does reach beyond, saturating is a function of a value
    that is private already, hence post-processing, and keeps it from wrapping to the other end of
    the range. It binds nobody who does not call it: a liar may send any vector, and spoil its own
    bucket by that, which is the robust rule's business.

    Rounding to nearest moves each coordinate by at most ``2**-(bits + 1)``, hence the sum of n
    vectors by at most ``n * 2**-(bits + 1)``. After noise it is post-processing too. Raises
    ProtocolError if a value is NaN or infinite, or one saturated value alone would not fit an
    int32.

    Parameters
    ----------
    values:
        float64, shape (d,): one client's contribution.
    bits:
        Fraction bits, the same for the whole bucket: see :func:`fraction_bits`.
    bound:
        Values are saturated at plus and minus this.

    Returns
    -------
    NDArray[np.uint32]
        Shape (d,), two's complement.
    """
    _check_bound(bound)
    if _largest_code(bits, bound) > _LARGEST:
        raise ProtocolError(
            f"{bits} fraction bits are too many for values up to {bound}: one exceeds 32 bits",
            cure=f"use at most {fraction_bits(1, bound)} bits: see fraction_bits(members, bound)",
        )
    values = np.asarray(values, dtype=np.float64)
    check_finite(values)
    scaled = np.rint(np.ldexp(np.clip(values, -bound, bound), bits))
    return scaled.astype(np.int32).view(np.uint32)


def decode_sum(total: NDArray[np.uint32], bits: int) -> NDArray[np.float64]:
    """Decode a sum of encoded vectors.

    Parameters
    ----------
    total:
        uint32, shape (d,): the sum modulo 2^32.
    bits:
        Fraction bits that the vectors were encoded with.

    Returns
    -------
    NDArray[np.float64]
        Shape (d,): the sum itself. Exact on the grid if the members were at most those that
        ``bits`` allows for.
    """
    signed = np.ascontiguousarray(total, dtype=np.uint32).view(np.int32)
    return np.ldexp(signed.astype(np.float64), -bits)


def check_finite(values: NDArray[np.float64]) -> None:
    """Refuse values that have no encoding; raises ProtocolError if a value is NaN or infinite."""
    if bad := int(values.size - np.count_nonzero(np.isfinite(values))):
        raise ProtocolError(
            f"{bad} of {values.size} values to be encoded are NaN or infinite",
            cure="leave this round out: find the non-finite step in local training",
        )


def _largest_code(bits: int, bound: float) -> float:
    """Integer that a saturated coordinate becomes."""
    return float(np.rint(np.ldexp(bound, bits)))


def _check_bound(bound: float) -> None:
    if not (math.isfinite(bound) and bound > 0):
        raise ProtocolError(
            f"bound = {bound} is not a positive finite number",
            cure="derive it from the clipping norm and the noise's tail",
        )
