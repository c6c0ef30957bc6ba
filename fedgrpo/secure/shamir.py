"""Shamir's scheme (1979, doi 10.1145/359168.359176) over a prime field, for 32-byte secrets.

Any set of ``threshold - 1`` shares has the same distribution whatever the secret is: for each
secret there is one polynomial of degree below ``threshold`` through it and them, and coefficients
are uniform. The field is the integers modulo the least prime above 2^256, so that a secret of 256
bits is one element of it and Python's own integers do the work, in microseconds.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from fedgrpo.ground.crypto import KEY_BYTES

SHARE_BYTES = KEY_BYTES + 1
"""Length of a share: an element of the field."""

_PRIME = 2**256 + 297


def split_secret(secret: bytes, threshold: int, shares: int) -> list[bytes]:
    """Split a 32-byte secret into shares of 33 bytes, of which any ``threshold`` give it back.

    Fewer say nothing about it (information-theoretic). The i-th share belongs to x = i + 1.
    """
    drawn = (secrets.randbelow(_PRIME) for _ in range(threshold - 1))
    coefficients = [int.from_bytes(secret, "big"), *drawn]
    points = range(1, shares + 1)
    values = (sum(c * x**power for power, c in enumerate(coefficients)) for x in points)
    return [(value % _PRIME).to_bytes(SHARE_BYTES, "big") for value in values]


def join_secret(shares: Mapping[int, bytes]) -> bytes:
    """Invert :func:`split_secret`, given exactly ``threshold`` shares by position (from 0).

    A wrong share gives a wrong secret without any sign of it: check what comes out.
    """
    values = {position + 1: int.from_bytes(share, "big") for position, share in shares.items()}
    total = 0
    for x, value in values.items():
        above = below = 1
        for other in values.keys() - {x}:
            above, below = above * other % _PRIME, below * (other - x) % _PRIME
        total += value * above * pow(below, -1, _PRIME)
    return (total % _PRIME % 2**256).to_bytes(KEY_BYTES, "big")
