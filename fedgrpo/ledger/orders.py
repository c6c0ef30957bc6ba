"""What all nodes of a round are ordered to compute, as one hash."""

from __future__ import annotations

import hashlib
import json

from fedgrpo.ledger.entries import RoundEntry


def order_digest(
    settings: str, model: str, basis: str, adapter: str, clipping_norm: float, radius: float
) -> bytes:
    """SHA-256 (32 bytes) of a round's order.

    Parameters
    ----------
    settings:
        Their fingerprint.
    model, basis, adapter:
        Hashes (hex) of base model and layout, frozen tensors, and the values that the round begins
        with.
    clipping_norm:
        L2 norm C of the round.
    radius:
        Of the ball that norms are checked against; 0 for none.
    """
    parts = [settings, [adapter, basis, model], clipping_norm, *([radius] if radius else [])]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def entered_order(entry: RoundEntry) -> bytes:
    """Return the digest of the order that a ledger's entry tells of."""
    return order_digest(
        entry.settings, entry.model, entry.basis, entry.adapter, entry.clipping_norm, entry.radius
    )
