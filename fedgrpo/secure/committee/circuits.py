"""Circuits that trim shared values and sum what is left, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations

import numpy as np

from fedgrpo.errors import ProtocolError
from fedgrpo.registry import Registry
from fedgrpo.robust.networks import layers, partition_network
from fedgrpo.secure.committee.adders import (
    Columns,
    add_in_parallel,
    add_serially,
    columns_of,
)
from fedgrpo.secure.committee.comparators import Comparator, exceeds, logarithmic, ripple
from fedgrpo.secure.committee.engine import Cleartext, Engine, Share, invert
from fedgrpo.secure.committee.planes import words_for
from fedgrpo.secure.committee.steps import Member, Result

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


def _rank(engine: Engine, values: Share, trim: int) -> Member[Sequence[Share]]:
    """Compare every two values, count how many each exceeds, and blank those of outer rank.

    Of two equal values the later counts as larger, so that ranks are 0 to n - 1, each once.
    """
    count = values.shape[1]
    if trim == 0:
        return [values[:, client] for client in range(count)]
    pairs = list(combinations(range(count), 2))
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    exceeding = yield from logarithmic(engine, values[:, firsts], values[:, seconds])
    exceeded = invert(engine, exceeding)
    beaten = np.stack(
        [
            np.stack(
                [
                    (exceeding if first == client else exceeded)[:, at]
                    for at, (first, second) in enumerate(pairs)
                    if client in (first, second)
                ],
                axis=1,
            )
            for client in range(count)
        ],
        axis=2,
    )  # (held, n - 1, n, W)
    bits = (count - 1).bit_length()
    ranks = yield from add_serially(
        engine, [[beaten[:, at] for at in range(count - 1)], *([] for _ in range(bits - 1))]
    )
    both = yield from exceeds(
        engine,
        np.concatenate([ranks, ranks], axis=1),
        [trim - 1] * count + [count - trim - 1] * count,
    )
    inside = both[:, :count] ^ both[:, count:]
    kept = yield from engine.conjoin(values, inside[:, :, None])
    return [kept[:, client] for client in range(count)]


CIRCUITS.register("ripple")(Circuit(partial(_partition, ripple), add_serially))
CIRCUITS.register("log")(Circuit(partial(_partition, logarithmic), add_in_parallel))
CIRCUITS.register("pairwise")(Circuit(_rank, add_in_parallel))


LINK_BYTES_PER_SECOND = 12.5e6
"""Rate of a member's link that the choice assumes: 100 Mbit/s."""
BITS_SENT = 1.5
"""Bits that each of four members sends for one AND."""


@dataclass(frozen=True)
class Cost:
    """What a circuit takes."""

    conjunctions: int
    """ANDs for each coordinate."""
    steps: int
    """Messages that wait for each other."""

    def seconds(self, dimension: int, latency_seconds: float) -> float:
        """Estimate the time on the wire of one round, for a one-way latency in seconds."""
        sent = BITS_SENT * self.conjunctions * words_for(dimension) * 8
        return self.steps * latency_seconds + sent / LINK_BYTES_PER_SECOND


@cache
def cost(circuit: str, values: int, trim: int, bits: int = 16, noise_bits: int = 22) -> Cost:
    """Count what a circuit takes, by running it on no coordinates at all.

    Parameters
    ----------
    circuit:
        A name in :data:`CIRCUITS`.
    values, trim, bits:
        Values in each coordinate, how many are trimmed at either end, and their width.
    noise_bits:
        Width of the sum and of the four shares of noise in it; 0 for a sum without noise.
    """
    engine, chosen = Cleartext(), CIRCUITS[circuit]
    kept = finish(chosen.keep(engine, np.zeros((1, values, bits, 0), np.uint64), trim))
    noise = [np.zeros((1, noise_bits, 0), np.uint64)] * (4 if noise_bits else 0)
    width = noise_bits or bits + values.bit_length()
    finish(chosen.add(engine, columns_of([*kept, *noise], width)))
    return Cost(engine.conjunctions, engine.steps)


def choose_circuit(
    values: int, trim: int, dimension: int, latency_seconds: float, bits: int = 16
) -> str:
    """Choose the circuit with the least estimated time on the wire.

    ``ripple`` sends least and waits most, ``pairwise`` the other way round, ``log`` is between.

    Parameters
    ----------
    values, trim, dimension, bits:
        As in the round's :class:`~fedgrpo.secure.committee.plan.Plan`.
    latency_seconds:
        Time from sending a message until it arrives: some 1e-3 in one building, 0.05 across a
        continent, 5 where messages are polled for.
    """
    return min(
        CIRCUITS,
        key=lambda name: cost(name, values, trim, bits).seconds(dimension, latency_seconds),
    )


def finish(work: Member[Result]) -> Result:
    """Run a circuit under :class:`~fedgrpo.secure.committee.engine.Cleartext`, which sends nothing.

    Raises
    ------
    ProtocolError
        If it wants to send something after all.
    """
    try:
        next(work)
    except StopIteration as done:
        result: Result = done.value
        return result
    raise ProtocolError("a circuit in the clear sent a message", cure="run it with all members")
