"""The norm-checked mean: vectors of too large an L2 norm count as zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedgrpo.secure.committee.compute.circuits.adders import Columns, add_in_parallel, carry_save
from fedgrpo.secure.committee.compute.circuits.comparators import exceeds
from fedgrpo.secure.committee.compute.circuits.plan import Plan
from fedgrpo.secure.committee.compute.engine import Engine, Share, invert
from fedgrpo.secure.committee.compute.planes import LANES, Words, lane_mask, words_for
from fedgrpo.secure.committee.steps import Member

TOLERANCE = 0.25
"""Share of the norm by which a vector may exceed it unnoticed."""


@dataclass(frozen=True)
class Check:
    """One norm that is held against a bound.

    Attributes
    ----------
    start, stop:
        Its coordinates.
    norm:
        N, the bound in steps.
    bits:
        w of a coordinate.
    """

    start: int
    stop: int
    norm: int
    bits: int

    @property
    def dropped(self) -> int:
        """Low bits that the check leaves out of every magnitude; the fewer, the dearer.

        Magnitudes are rounded down to multiples of ``2^s``, so no vector within the norm N is ever
        refused, and one of norm above ``N + 2^s sqrt(d)`` always is: by the triangle inequality, as
        each coordinate loses less than ``2^s``. The largest s with ``2^s sqrt(d) <= TOLERANCE N``.
        """
        slack = TOLERANCE * self.norm / math.sqrt(self.stop - self.start)
        return min(max(0, math.floor(math.log2(slack))), self.bits - 2) if slack > 0 else 0

    @property
    def words(self) -> slice:
        """Words that hold its coordinates."""
        return slice(self.start // LANES, words_for(self.stop))

    @property
    def mask(self) -> Words:
        """Its lanes in those words."""
        mask = lane_mask(self.stop)
        before = self.start // LANES
        if left := self.start % LANES:
            mask[before] &= ~lane_mask(left)[0]
        return mask[before:]


def checks_of(plan: Plan) -> tuple[Check, ...]:
    """The update's norm, and that of the figures after it where they are checked apart."""
    update = plan.dimension - plan.figures
    checks = [Check(0, update, plan.norm, plan.bits)]
    if plan.figures:
        checks.append(Check(update, plan.dimension, plan.figures_norm, plan.bits))
    return tuple(checks)


def most_products(plan: Plan) -> int:
    """Planes of the step in which each bit of a magnitude is multiplied with each other one."""
    bits = plan.bits - 1 - min(check.dropped for check in checks_of(plan))
    return plan.clients * bits * (bits - 1) // 2


def find_short_vectors(engine: Engine, values: Share, plan: Plan) -> Member[Share | None]:
    """Which vectors (held, n, w, W) are within the plan's norms, (held, n, 1), lane 0; None if all
    must be. Nobody learns which.
    """
    short = None
    for check in checks_of(plan):
        passed = yield from _passes(engine, values, check, plan)
        if passed is not None:
            short = passed if short is None else (yield from engine.conjoin(short, passed))
    return short


def blank_long_vectors(engine: Engine, values: Share, short: Share | None) -> Member[Share]:
    """Replace vectors (held, n, w, W), or any words of them, that are not short by zero.

    Zeroing, rather than leaving out, keeps the number that the mean divides by public and fixed.
    """
    if short is None:
        return values
    zero = np.zeros(values.shape[2:], np.uint64)
    zero[-1] = ~np.uint64(0)  # offset binary: only the highest bit is set
    offset = engine.constant(zero[None])
    blanked = yield from engine.conjoin(values ^ offset, _fill_lanes(short)[:, :, None])
    return np.asarray(blanked ^ offset)


def _passes(engine: Engine, values: Share, check: Check, plan: Plan) -> Member[Share | None]:
    """Whether each vector is within the bound, (held, n, 1), lane 0; None if all must be."""
    parts, mask = [], check.mask
    for words in plan.words_of(check.words):
        inside = slice(words.start - check.words.start, words.stop - check.words.start)
        highest = values[:, :, -1:, words]
        # A negative v is stored as v + 2^(w - 1); its lower bits inverted are -v - 1, free of ANDs.
        magnitude = values[:, :, check.dropped : -1, words] ^ invert(engine, highest)
        parts.append((yield from _squares(engine, magnitude & mask[inside])))
    # The columns of all portions are alike: side by side they are those of the whole.
    squares: Columns = [
        [np.concatenate(planes, axis=-1) for planes in zip(*columns, strict=True)]
        for columns in zip(*parts, strict=True)
    ]
    norms = yield from _sum_lanes(engine, squares)  # (held, n, bits, 1)
    bound = check.norm**2 >> 2 * check.dropped
    if bound >> norms.shape[2]:
        return None
    long = yield from exceeds(engine, norms, [bound] * values.shape[1])
    return invert(engine, long)


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
