"""The two kinds of mask, computed alike by members, who add them, and server, who takes them off.

Member u sends ``x_u + self_mask(u) + sum over peers v of pairwise_mask(u, v)`` modulo 2^32.
Pairwise masks are antisymmetric, so they cancel in the sum over all members; for a member that
dropped out, the peers' share of them remains and is recomputed from its reconstructed key. The self
mask protects a vector that arrives late, after its sender was declared dropped and its key revealed
(Bonawitz et al. 2017, doi 10.1145/3133956.3133982, section 4).

A mask is a stream from which the words of consecutive coordinates are taken, a block at a time, so
that nobody holds more than a block of any. Blocks are a matter of memory alone: vectors, survivors
and answers are whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.crypto import KeyStream, agree, derive
from fedgrpo.secure.roster import Roster

BLOCK = 1 << 16
"""Most coordinates that are worked on at a time."""


class Mask:
    """One mask, of which words are taken in the order of coordinates, and each once.

    Parameters
    ----------
    key:
        32 bytes, used for this mask only.
    negative:
        Whether the mask is minus (modulo 2^32) the key's stream.
    """

    def __init__(self, key: bytes, *, negative: bool) -> None:
        self._stream, self._negative = KeyStream(key), negative

    def words(self, count: int) -> NDArray[np.uint32]:
        """Return the mask of the next ``count`` coordinates; uint32, shape (count,)."""
        words = self._stream.words(count)
        return np.negative(words, out=words) if self._negative else words


def self_mask(roster: Roster, member: int, seed: bytes, *, off: bool = False) -> Mask:
    """Mask that ``member`` expands from its own 32-byte seed; with ``off``, what takes it off."""
    return Mask(derive(seed, roster.context("self mask", member)), negative=off)


def pairwise_mask(roster: Roster, member: int, private: bytes, peer: int) -> Mask:
    """Mask that ``member``, client of the X25519 key ``private``, adds on account of ``peer``:
    minus (modulo 2^32) what ``peer`` adds on account of ``member``. Raises ProtocolError if the
    peer's public masking key has low order.
    """
    low, high = sorted((member, peer))
    key = agree(private, roster.keys_of(peer).masking, roster.context("pairwise mask", low, high))
    return Mask(key, negative=member != low)


def blocks_of(size: int, most: int = BLOCK) -> Iterator[slice]:
    """Cut so many coordinates into consecutive blocks."""
    return (slice(start, min(start + most, size)) for start in range(0, size, most))


def masked_sum(vectors: Sequence[NDArray[np.uint32]], masks: Sequence[Mask]) -> NDArray[np.uint32]:
    """Sum vectors, or the same block of each, and the masks' next words, modulo 2^32."""
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total += vector
    for mask in masks:
        total += mask.words(total.size)
    return total
