"""Which of two shared integers is larger."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fedgrpo.secure.committee.compute.engine import Engine, Share, invert
from fedgrpo.secure.committee.steps import Member

Comparator = Callable[[Engine, Share, Share], Member[Share]]
"""``(engine, a, b) -> a > b``: two shares of shape (held, m, w, W) to one of (held, m, W)."""


def ripple(engine: Engine, a: Share, b: Share) -> Member[Share]:
    """Compare from the lowest bit up: one AND a bit, one step a bit."""
    differ = a ^ b
    greater = yield from engine.conjoin(a[:, :, 0], differ[:, :, 0])
    for bit in range(1, a.shape[2]):
        # Where the bits differ, a's bit decides, else the bits below.
        greater ^= yield from engine.conjoin(differ[:, :, bit], a[:, :, bit] ^ greater)
    return greater


def logarithmic(engine: Engine, a: Share, b: Share) -> Member[Share]:
    """Compare halves of the bits at once: 2.6 ANDs a bit, ``1 + ceil(log2 w)`` steps."""
    differ = a ^ b
    greater = yield from engine.conjoin(a, differ)
    return (yield from _decide(engine, greater, invert(engine, differ)))


def exceeds(engine: Engine, a: Share, bounds: Sequence[int]) -> Member[Share]:
    """Compare with public numbers, ``a > bounds``: a share (held, m, w, W) with m of w bits."""
    bits = np.array(bounds)[:, None] >> np.arange(a.shape[2]) & 1
    ones = np.where(bits, ~np.uint64(0), np.uint64(0))[:, :, None]
    equal = invert(engine, a) ^ engine.constant(np.broadcast_to(ones, a.shape[1:]))
    return (yield from _decide(engine, a & ~ones, equal))


def _decide(engine: Engine, greater: Share, equal: Share) -> Member[Share]:
    """Merge neighbouring groups of bits, each greater or equal, until one is left.

    Whether the lowest group is equal never matters, so it is not computed.
    """
    while (width := greater.shape[2]) > 1:
        low, high = slice(0, width // 2 * 2, 2), slice(1, None, 2)
        upper = equal[:, :, high]
        both = yield from engine.conjoin(
            np.concatenate([upper, upper[:, :, 1:]], axis=2),
            np.concatenate([greater[:, :, low], equal[:, :, low][:, :, 1:]], axis=2),
        )
        half, odd = width // 2, slice(width // 2 * 2, None)
        merged = greater[:, :, high] ^ both[:, :, :half]
        # The place of the lowest group's equality is kept by one that nothing reads.
        equality = np.concatenate([upper[:, :, :1], both[:, :, half:]], axis=2)
        greater = np.concatenate([merged, greater[:, :, odd]], axis=2)
        equal = np.concatenate([equality, equal[:, :, odd]], axis=2)
    return greater[:, :, 0]
