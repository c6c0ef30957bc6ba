"""The two kinds of mask, computed alike by members, who add them, and server, who takes them off.

Member u sends ``x_u + self_mask(u) + sum over peers v of pairwise_mask(u, v)`` modulo 2^32.
Pairwise masks are antisymmetric, so they cancel in the sum over all members; for a member that
dropped out, the peers' share of them remains and is recomputed from its reconstructed key. The self
mask protects a vector that arrives late, after its sender was declared dropped and its key revealed
(Bonawitz et al. 2017, doi 10.1145/3133956.3133982, section 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.crypto import agree, derive, stream_words
from fedgrpo.secure.roster import Roster


def self_mask(roster: Roster, member: int, seed: bytes, words: int) -> NDArray[np.uint32]:
    """Mask that ``member`` expands from its own 32-byte seed; uint32, shape (words,)."""
    return stream_words(derive(seed, roster.context("self mask", member)), words)


def pairwise_mask(
    roster: Roster, member: int, private: bytes, peer: int, words: int
) -> NDArray[np.uint32]:
    """Mask that ``member``, client of the X25519 key ``private``, adds on account of ``peer``;
    raises ProtocolError if the peer's public masking key has low order.

    Returns
    -------
    NDArray[np.uint32]
        Shape (words,); minus (modulo 2^32) what ``peer`` adds on account of ``member``.
    """
    low, high = sorted((member, peer))
    key = agree(private, roster.keys_of(peer).masking, roster.context("pairwise mask", low, high))
    mask = stream_words(key, words)
    return mask if member == low else np.negative(mask)
