"""Fingerprints that two people compare over the telephone."""

from __future__ import annotations

import hashlib

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: no letter that is heard or read as another sign."""
_GROUP, _GROUPS = 4, 4


def fingerprint(content: bytes) -> str:
    """Shorten content to four groups of four.

    The first 80 bits of SHA-256: whoever would have other content of the same fingerprint needs
    2^80 tries.
    """
    signs = _GROUP * _GROUPS
    number = int.from_bytes(hashlib.sha256(content).digest(), "big") >> (256 - 5 * signs)
    text = "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(signs)))
    return "-".join(text[at : at + _GROUP] for at in range(0, signs, _GROUP))


def heard(text: str) -> str:
    """Bring a fingerprint that somebody has typed into the form of :func:`fingerprint`."""
    signs = text.upper().translate(str.maketrans("OIL", "011", " -\t"))
    return "-".join(signs[at : at + _GROUP] for at in range(0, len(signs), _GROUP))
