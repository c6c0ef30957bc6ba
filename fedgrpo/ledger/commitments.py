"""A client's commitment to what it released."""

from __future__ import annotations

import hashlib


def commitment(salt: bytes, release: bytes) -> str:
    """Return SHA-256 (hex) of a salt and a release.

    Adversary: readers of the ledger, who may try all values that a release can have; of a small
    adapter that would be few. The salt is 32 secret bytes of the client's own, so the commitment
    says nothing as long as the client keeps it (random oracle), and the client can show later what
    it released and nothing else (collisions of SHA-256).
    """
    return hashlib.sha256(b"fedgrpo commitment\n" + salt + release).hexdigest()
