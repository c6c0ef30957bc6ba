"""Bit planes: 64 coordinates in a machine word, so that one instruction serves 64 of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

LANES = 64
"""Coordinates in a word."""


def words_for(dimension: int) -> int:
    """Words of one plane of ``dimension`` coordinates."""
    return -(-dimension // LANES)


def slice_planes(values: NDArray[np.integer], bits: int) -> Words:
    """Turn integers into planes of their bits, least significant first.

    Parameters
    ----------
    values:
        Integers, shape (..., d); a negative one in two's complement.
    bits:
        Planes to take; higher bits are dropped.

    Returns
    -------
    Words
        uint64, shape (..., bits, W) with ``W = ceil(d / 64)``; lanes beyond d are 0.
    """
    *batch, dimension = values.shape
    values = values.astype(np.uint32 if bits <= 32 else np.uint64)  # in two's complement
    planes = np.zeros((*batch, bits, words_for(dimension)), np.uint64)
    packed = planes.view(np.uint8)
    for bit in range(bits):
        plane = np.packbits(values & values.dtype.type(1 << bit) != 0, axis=-1, bitorder="little")
        packed[..., bit, : plane.shape[-1]] = plane
    return planes


def join_planes(planes: Words, dimension: int) -> Words:
    """Invert :func:`slice_planes`.

    Parameters
    ----------
    planes:
        uint64, shape (..., bits, W), at most 64 bits.
    dimension:
        Coordinates to return, at most ``64 W``.

    Returns
    -------
    Words
        uint64, shape (..., d).
    """
    *batch, bits, _ = planes.shape
    packed = np.ascontiguousarray(planes).view(np.uint8)
    values = np.zeros((*batch, dimension), np.uint64)
    for bit in range(bits):
        plane = np.unpackbits(packed[..., bit, :], axis=-1, count=dimension, bitorder="little")
        values |= plane.astype(np.uint64) << np.uint64(bit)
    return values


def lane_mask(dimension: int) -> Words:
    """One plane with a 1 in the lanes of coordinates and 0 beyond; shape (W,)."""
    return np.asarray(slice_planes(np.ones(dimension, np.uint8), 1)[0])
