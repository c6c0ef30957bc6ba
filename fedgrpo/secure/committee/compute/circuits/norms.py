"""The norm-checked mean: vectors of too large an L2 norm count as zero."""

from __future__ import annotations

import math

import numpy as np

from fedgrpo.secure.committee.compute.circuits.adders import Columns, add_in_parallel, carry_save
from fedgrpo.secure.committee.compute.circuits.comparators import exceeds
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.engine import Engine, Share, invert
from fedgrpo.secure.committee.compute.planes import LANES, lane_mask
from fedgrpo.secure.committee.steps import Member

TOLERANCE = 0.25
"""Share of the norm by which a vector may exceed it unnoticed."""


def dropped_bits(plan: Plan) -> int:
    """Low bits that the check leaves out of every magnitude; the fewer, the dearer.

    Magnitudes are rounded down to multiples of ``2^s``, so no vector within the norm N is ever
    refused, and one of norm above ``N + 2^s sqrt(d)`` always is: by the triangle inequality, as
    each coordinate loses less than ``2^s``. The largest s with ``2^s sqrt(d) <= TOLERANCE N``.
    """
    slack = TOLERANCE * plan.norm / math.sqrt(plan.dimension)
    return min(max(0, math.floor(math.log2(slack))), plan.bits - 2) if slack > 0 else 0


def blank_long_vectors(engine: Engine, values: Share, plan: Plan) -> Member[Share]:
    """Replace vectors above the plan's norm by zero; (held, n, w, W) to the same.

    Nobody learns whose. Zeroing, rather than leaving out, keeps the number that the mean divides by
    public and fixed.
    """
    dropped = dropped_bits(plan)
    highest = values[:, :, -1:]
    # A negative v is stored as v + 2^(w - 1); its lower bits inverted are -v - 1, free of ANDs.
    magnitude = values[:, :, dropped:-1] ^ invert(engine, highest)
    squares = yield from _squares(engine, magnitude & lane_mask(plan.dimension))
    norms = yield from _sum_lanes(engine, squares)  # (held, n, bits, 1)
    bound = plan.norm**2 >> 2 * dropped
    if bound >> norms.shape[2]:
        return values
    long = yield from exceeds(engine, norms, [bound] * values.shape[1])
    short = _fill_lanes(invert(engine, long))  # (held, n, 1)
    zero = np.zeros(values.shape[2:], np.uint64)
    zero[-1] = ~np.uint64(0)  # offset binary: only the highest bit is set
    offset = engine.constant(zero[None])
    blanked = yield from engine.conjoin(values ^ offset, short[:, :, None])
    return np.asarray(blanked ^ offset)


def _squares(engine: Engine, magnitude: Share) -> Member[Columns]:
    """Square numbers (held, n, b, W), as columns of planes (held, n, W) that sum to the squares."""
    bits = magnitude.shape[2]
    pairs = [(i, j) for j in range(bits) for i in range(j)]
    lows, highs = [i for i, _ in pairs], [j for _, j in pairs]
    products = yield from engine.conjoin(magnitude[:, :, lows], magnitude[:, :, highs])
    columns: Columns = [[] for _ in range(2 * bits)]
    for bit in range(bits):
        columns[2 * bit].append(magnitude[:, :, bit])
    for at, (i, j) in enumerate(pairs):  # twice in the square
        columns[i + j + 1].append(products[:, :, at])
    return (yield from carry_save(engine, columns))


def _sum_lanes(engine: Engine, columns: Columns) -> Member[Share]:
    """Sum columns of planes (held, n, W) over all lanes; a share (held, n, bits, 1), lane 0."""
    words, lanes = columns[0][0].shape[-1], LANES
    growth = (words * LANES - 1).bit_length()
    columns = [*columns, *([] for _ in range(growth))]
    while words > 1:
        half = (words + 1) // 2
        columns = [[part for plane in column for part in _cut(plane, half)] for column in columns]
        columns = yield from carry_save(engine, columns)
        words = half
    while lanes > 1:
        lanes //= 2
        low = np.uint64((1 << lanes) - 1)
        columns = [
            [part for plane in column for part in (plane & low, plane >> np.uint64(lanes))]
            for column in columns
        ]
        columns = yield from carry_save(engine, columns)
    return (yield from add_in_parallel(engine, columns))


def _cut(plane: Share, half: int) -> tuple[Share, Share]:
    """Cut a plane's words in two, a zero filling up an odd number of them."""
    upper = np.zeros_like(plane[..., :half])
    upper[..., : plane.shape[-1] - half] = plane[..., half:]
    return plane[..., :half], upper


def _fill_lanes(bit: Share) -> Share:
    """Repeat lane 0 of a share of shape (..., 1) in all lanes."""
    return np.asarray(np.uint64(0) - (bit & np.uint64(1)))
