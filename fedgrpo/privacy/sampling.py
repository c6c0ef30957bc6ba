"""Which units take part in a round: independent coins that nobody else can predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedgrpo.ground.crypto import derive_key

COIN_BITS = 53
"""Resolution of the sampling coins: that of a float64's mantissa."""


def sampled_units(names: Sequence[str], rate: float, key: bytes) -> list[str]:
    """Choose each unit independently with probability ``rate``, in an order of their own.

    Privacy amplification by sampling holds against an adversary who does not learn the sample, so
    the coins come from AES-256 under a secret key, never from a seeded generator. A unit's coin is
    a function of the key and its name, and so is its place in the order: neither depends on which
    other units there are. AES is a pseudorandom permutation, and names differ in their first 16
    bytes, so coins and places look independent and uniform to whoever does not hold the key.

    Parameters
    ----------
    names:
        Distinct SHA-256 names in hex.
    rate:
        In (0, 1].
    key:
        32 secret bytes that serve this one draw.
    """
    blocks = b"".join(bytes.fromhex(name)[:16] for name in names)
    coins, places = (_permuted(blocks, derive_key(key, use)) for use in ("coins", "order"))
    taken = (coins[:, 0] >> np.uint64(64 - COIN_BITS)) < np.uint64(int(rate * 2**COIN_BITS))
    chosen = np.flatnonzero(taken).tolist()
    return [names[i] for i in sorted(chosen, key=lambda i: (*places[i].tolist(), names[i]))]


def _permuted(blocks: bytes, key: bytes) -> NDArray[np.uint64]:
    """AES-256 of each block of 16 bytes by itself, as uint64 of shape (n, 2)."""
    # Each block is a distinct input of a pseudorandom permutation, not a message to hide.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return np.frombuffer(encryptor.update(blocks), "<u8").reshape(-1, 2)
