"""Circuits that trim shared values and sum what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from fedgrpo.ground.parts import Registry
from fedgrpo.robust.networks import layers, partition_network
from fedgrpo.secure.committee.compute.circuits.adders import (
    Columns,
    add_in_parallel,
    add_serially,
)
from fedgrpo.secure.committee.compute.circuits.comparators import (
    Comparator,
    exceeds,
    logarithmic,
    ripple,
)
from fedgrpo.secure.committee.compute.engine import Engine, Share, invert
from fedgrpo.secure.committee.steps import Member

Adder = Callable[[Engine, Columns], Member[Share]]


@dataclass(frozen=True)
class Circuit:
    """How values are trimmed, and how what is left is added."""

    keep: Callable[[Engine, Share, int], Member[Sequence[Share]]]
    """``(engine, values (held, n, w, W), trim) -> numbers (held, w, W)`` with the sum of the middle
    ``n - 2 trim`` values in every coordinate."""
    add: Adder


CIRCUITS: Registry[Circuit] = Registry("committee circuit")


def _partition(
    compare: Comparator, engine: Engine, values: Share, trim: int
) -> Member[Sequence[Share]]:
    """Move the outer values aside; equal values are not told apart, nor need they be."""
    count = values.shape[1]
    values = values.copy()
    for layer in layers(partition_network(count, trim)):
        lows, highs = [low for low, _ in layer], [high for _, high in layer]
        low, high = values[:, lows], values[:, highs]
        swap = yield from compare(engine, low, high)
        exchanged = yield from engine.conjoin(low ^ high, swap[:, :, None])
        values[:, lows] = low ^ exchanged
        values[:, highs] = high ^ exchanged
    return [values[:, wire] for wire in range(trim, count - trim)]


def _blank_outer(engine: Engine, values: Share, trim: int) -> Member[Sequence[Share]]:
    """Rank every value among all, and blank those of the ``trim`` lowest and highest ranks."""
    count = values.shape[1]
    if trim:
        ranks = yield from _ranks(engine, values)
        low, high = [trim - 1] * count, [count - trim - 1] * count
        both = yield from exceeds(engine, np.concatenate([ranks, ranks], axis=1), [*low, *high])
        inside = both[:, :count] ^ both[:, count:]
        values = yield from engine.conjoin(values, inside[:, :, None])
    return [values[:, client] for client in range(count)]


def _ranks(engine: Engine, values: Share) -> Member[Share]:
    """Count, for each value (held, n, w, W), how many others it exceeds; (held, n, bits, W).

    Of two equal values the later counts as larger, so that ranks are 0 to n - 1, each once.
    """
    count = values.shape[1]
    pairs = list(combinations(range(count), 2))
    first, second = [list(side) for side in zip(*pairs, strict=True)]
    exceeding = yield from logarithmic(engine, values[:, first], values[:, second])
    wins = np.concatenate([exceeding, invert(engine, exceeding)], axis=1)
    own = [
        [at + len(pairs) * (client == b) for at, (a, b) in enumerate(pairs) if client in (a, b)]
        for client in range(count)
    ]
    ones = [wins[:, [row[other] for row in own]] for other in range(count - 1)]
    higher: Columns = [[] for _ in range((count - 1).bit_length() - 1)]
    return (yield from add_serially(engine, [ones, *higher]))


CIRCUITS.register("ripple")(Circuit(partial(_partition, ripple), add_serially))
CIRCUITS.register("log")(Circuit(partial(_partition, logarithmic), add_in_parallel))
CIRCUITS.register("pairwise")(Circuit(_blank_outer, add_in_parallel))
