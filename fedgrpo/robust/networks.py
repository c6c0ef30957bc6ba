"""Comparator networks: fixed sequences of compare-and-swap that order any values.

A network does not look at what it compares, so numpy runs it on whole rows, and a committee on
values that nobody sees.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings.protocols.committee.groups import MOST_GROUPS

Network = tuple[tuple[int, int], ...]
"""Comparators (a, b), in order: wire a gets the smaller value and wire b the larger."""


@cache
def sorting_network(count: int) -> Network:
    """Batcher's odd-even merge sort of ``count`` values (1968, doi 10.1145/1468075.1468121)."""
    comparators = []
    merged = 1
    while merged < count:
        step = merged
        while step >= 1:
            for start in range(step % merged, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * merged) == (low + step) // (2 * merged):
                        comparators.append((low, low + step))
            step //= 2
        merged *= 2
    return tuple(comparators)


@cache
def selection(count: int, trim: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """Sort all but the ``trim`` smallest and largest of ``count`` values.

    Returns
    -------
    tuple[tuple[int, int, bool, bool], ...]
        Comparators (a, b) of :func:`sorting_network`, and whether anybody reads the smaller value
        that goes to a, and the larger one that goes to b.
    """
    read = set(range(trim, count - trim))
    needed = []
    for low, high in reversed(sorting_network(count)):
        if low in read or high in read:
            needed.append((low, high, low in read, high in read))
            read |= {low, high}
    return tuple(reversed(needed))


@cache
def partition_network(count: int, trim: int) -> Network:
    """Move the ``trim`` smallest of ``count`` values to the first wires, the largest to the last.

    Found by taking comparators out of a sorting network while it still partitions, which saves up
    to half of them: 21 instead of 32 for ten values and trim 2. Sorting networks to start from are
    cut out of Batcher's for the next power of two; the shortest result wins.

    That it partitions is checked on all inputs of 0 and 1 with ``trim`` zeros or ``trim`` ones,
    which is enough: values up to the trim-th smallest are zeros, the rest ones, and a network maps
    monotone functions of inputs to those of outputs (0-1 principle; Knuth, volume 3, 5.3.4).

    Parameters
    ----------
    count:
        Values, at most :data:`MOST_GROUPS`.
    trim:
        Values in each outer group, from 0 to ``(count - 1) // 2``. None need no comparators.

    Raises
    ------
    SettingsError
        If there are too many values, or no such groups.
    """
    if not (count <= MOST_GROUPS and 0 <= 2 * trim < count):
        raise SettingsError(
            f"no partition network takes {trim} values off either end of {count}",
            cure=f"use at most {MOST_GROUPS} values and trim less than half of them",
        )
    if trim == 0:
        return ()
    tests = _tests(count, trim)
    pruned = (_prune(network, trim, tests) for network in _windows(count))
    return min(pruned, key=lambda network: (len(network), len(layers(network))))


def layers(network: Network) -> list[Network]:
    """Group comparators that do not wait for each other, each as early as possible."""
    free: dict[int, int] = {}
    grouped: list[list[tuple[int, int]]] = []
    for low, high in network:
        layer = max(free.get(low, 0), free.get(high, 0))
        free[low] = free[high] = layer + 1
        if layer == len(grouped):
            grouped.append([])
        grouped[layer].append((low, high))
    return [tuple(layer) for layer in grouped]


def _windows(count: int) -> list[Network]:
    """Sorting networks of ``count`` neighbouring wires of Batcher's for a power of two.

    The other wires have values below or above all, which stay where they are.
    """
    whole = 1 << (count - 1).bit_length()
    return [
        tuple(
            (low - first, high - first)
            for low, high in sorting_network(whole)
            if first <= low and high < first + count
        )
        for first in range(whole - count + 1)
    ]


def _tests(count: int, trim: int) -> NDArray[np.uint8]:
    """Bits of all inputs, one to a lane; shape (2, count, bytes).

    First those with ``trim`` zeros, then their complements.
    """
    chosen = np.array(list(combinations(range(count), trim)), dtype=np.intp)
    chosen = np.pad(chosen, ((0, -len(chosen) % 8), (0, 0)), mode="edge")  # fill the last byte
    bits = np.ones((count, len(chosen)), dtype=np.uint8)
    bits[chosen.T, np.arange(len(chosen))] = 0
    zeros = np.packbits(bits, axis=1)
    return np.stack([zeros, ~zeros])


def _prune(network: Network, trim: int, tests: NDArray[np.uint8]) -> Network:
    """Take out, from the last comparator to the first, each that is not needed."""
    for at in reversed(range(len(network))):
        shorter = network[:at] + network[at + 1 :]
        if _partitions(shorter, trim, tests):
            network = shorter
    return network


def _partitions(network: Network, trim: int, tests: NDArray[np.uint8]) -> bool:
    wires = [tests[:, wire] for wire in range(tests.shape[1])]
    for low, high in network:
        wires[low], wires[high] = wires[low] & wires[high], wires[low] | wires[high]
    lowest = np.bitwise_or.reduce([wire[0] for wire in wires[:trim]])
    largest = np.bitwise_and.reduce([wire[1] for wire in wires[-trim:]])
    return not lowest.any() and bool((largest == 0xFF).all())
