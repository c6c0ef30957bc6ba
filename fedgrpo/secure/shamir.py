"""Shamir's scheme over GF(2^128), which shares a 32-byte secret as two independent halves."""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from fedgrpo.ground.crypto import KEY_BYTES

_HALF = KEY_BYTES // 2


def split_secret(secret: bytes, threshold: int, shares: int) -> list[bytes]:
    """Split a 32-byte secret into 32-byte shares, of which any ``threshold`` give it back.

    Fewer say nothing about it (Shamir 1979, information-theoretic). The i-th share belongs to x = i
    + 1.
    """
    low = Shamir.split(threshold, shares, secret[:_HALF], False)
    high = Shamir.split(threshold, shares, secret[_HALF:], False)
    return [left + right for (_, left), (_, right) in zip(low, high, strict=True)]


def join_secret(shares: Mapping[int, bytes]) -> bytes:
    """Invert :func:`split_secret`, given exactly ``threshold`` shares by position (from 0).

    A wrong share gives a wrong secret without any sign of it: check what comes out.
    """
    low = [(position + 1, share[:_HALF]) for position, share in shares.items()]
    high = [(position + 1, share[_HALF:]) for position, share in shares.items()]
    return bytes(Shamir.combine(low, False) + Shamir.combine(high, False))
