"""Sums of shared integers: carry-save down to two rows, then one addition with carries.

Columns are lists of planes of the same weight, each of shape (held, ..., W).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedgrpo.secure.committee.compute.engine import Engine, Share
from fedgrpo.secure.committee.steps import Member

Columns = list[list[Share]]


def columns_of(numbers: Sequence[Share], width: int) -> Columns:
    """Put the bits of numbers, shares of shape (held, ..., w, W), into columns; modulo 2^width."""
    return [
        [number[..., bit, :] for number in numbers if bit < number.shape[-2]]
        for bit in range(width)
    ]


def add_serially(engine: Engine, columns: Columns) -> Member[Share]:
    """Add with the fewest ANDs, about one step a bit; (held, ..., w, W), modulo 2^w."""
    while max(map(len, columns)) > 1:
        # Once all columns below have one bit left, a column of two has its last carry.
        low = next(bit for bit, column in enumerate(columns) if len(column) > 1)
        columns = yield from _compress(engine, columns, low)
    return _stack(columns)


def add_in_parallel(engine: Engine, columns: Columns) -> Member[Share]:
    """Add with few steps, some ``log1.5(rows) + log2(w)``; (held, ..., w, W), modulo 2^w.

    The last two rows are added by Sklansky's parallel prefix (1960, doi 10.1109/TEC.1960.5219822).
    """
    columns = yield from carry_save(engine, columns)
    low = next((bit for bit, column in enumerate(columns) if len(column) > 1), len(columns))
    done, rows = columns[:low], columns[low:]
    if not rows:
        return _stack(done)
    blank = np.zeros_like(columns[low][0])
    first, second = (
        _stack([[column[row] if row < len(column) else blank] for column in rows]) for row in (0, 1)
    )
    upper = yield from _add_rows(engine, first, second)
    return np.concatenate([_stack(done), upper], axis=-2) if done else upper


def carry_save(engine: Engine, columns: Columns) -> Member[Columns]:
    """Compress columns until none has more than two planes; the sum stays, modulo 2^w."""
    while max(map(len, columns)) > 2:
        columns = yield from _compress(engine, columns, None)
    return columns


def _compress(engine: Engine, columns: Columns, half_at: int | None) -> Member[Columns]:
    """Replace, in one step, every three planes of a column by a sum and a carry: one AND each.

    In column ``half_at``, two planes are replaced as well. Carries out of the last column vanish.
    """
    after: Columns = [[] for _ in columns]
    left: list[Share] = []
    right: list[Share] = []
    carries: list[tuple[int, Share | None]] = []
    for bit, column in enumerate(columns):
        size = 2 if bit == half_at and len(column) == 2 else 3
        whole = len(column) // size * size
        after[bit] += column[whole:]
        for at in range(0, whole, size):
            x, y, *rest = column[at : at + size]
            z = rest[0] if rest else None
            after[bit].append(x ^ y if z is None else x ^ y ^ z)
            if bit + 1 < len(columns):
                left.append(x if z is None else x ^ z)
                right.append(y if z is None else y ^ z)
                carries.append((bit + 1, z))
    if carries:
        products = yield from engine.conjoin(np.stack(left, axis=1), np.stack(right, axis=1))
        for at, (bit, z) in enumerate(carries):  # majority of x, y, z is (x ^ z)(y ^ z) ^ z
            after[bit].append(products[:, at] if z is None else products[:, at] ^ z)
    return after


def _add_rows(engine: Engine, a: Share, b: Share) -> Member[Share]:
    """Add two shares of shape (held, ..., w, W), modulo 2^w."""
    total = a ^ b
    width = a.shape[-2] - 1  # carries out of the last column are not needed
    generate = yield from engine.conjoin(a[..., :width, :], b[..., :width, :])
    propagate = total[..., :width, :].copy()
    span = 1
    while span < width:
        # Bits in the upper half of a block of 2 span take in the end of its lower half.
        upper = [bit for bit in range(width) if bit & span]
        ends = [bit & ~(2 * span - 1) | (span - 1) for bit in upper]
        # A block that starts at bit 0 takes no carry in, so nobody asks what it propagates.
        inner = [at for at, bit in enumerate(upper) if bit >= 2 * span]
        chain = propagate[..., upper, :]
        inner_ends = [ends[at] for at in inner]
        both = yield from engine.conjoin(
            np.concatenate([chain, chain[..., inner, :]], axis=-2),
            np.concatenate([generate[..., ends, :], propagate[..., inner_ends, :]], axis=-2),
        )
        generate[..., upper, :] ^= both[..., : len(upper), :]
        propagate[..., [upper[at] for at in inner], :] = both[..., len(upper) :, :]
        span *= 2
    total[..., 1:, :] ^= generate
    return total


def _stack(columns: Columns) -> Share:
    """Turn columns of at most one plane each into a share of shape (held, ..., w, W)."""
    blank = np.zeros_like(columns[0][0])
    return np.stack([column[0] if column else blank for column in columns], axis=-2)
