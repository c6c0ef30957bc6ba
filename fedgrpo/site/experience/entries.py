"""An experience, its place in the chain, and a promise of the whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedgrpo.ground.crypto import KEY_BYTES
from fedgrpo.ground.records import Experience, Record, to_json

START = "0" * 64
"""What the first link goes back to."""


@dataclass(frozen=True)
class Link(Record):
    """A line of the chain: it says nothing of the content, and stays when that goes."""

    number: int
    """From 1."""
    content: str
    """See :func:`content_hash`."""
    link: str
    """See :func:`link_hash`."""


@dataclass(frozen=True)
class Promise(Record):
    """A line of the promises, by which a commitment can be opened later."""

    entries: int
    """Of the chain, when it was made."""
    link: str
    """Of the last of them."""
    salt: str
    """32 bytes, hex."""
    at: float
    """Unix time, in seconds."""

    @property
    def commitment(self) -> str:
        """What was shown: 64 hex digits, whatever the store holds.

        Adversary: whoever is shown it. It says nothing, not even how many entries there are, while
        the salt is kept (random oracle); with it and the chain the site can show that this chain
        was behind it, and no other (collisions of SHA-256).
        """
        return _digest("commitment", bytes.fromhex(self.salt), f"{self.entries} {self.link}")


def plain_content(salt: bytes, experience: Experience) -> bytes:
    """What is sealed: 32 random bytes, and the experience."""
    if len(salt) != KEY_BYTES:
        raise ValueError(f"a salt of {len(salt)} bytes")
    return salt + to_json(experience).encode()


def content_hash(content: bytes) -> str:
    """SHA-256 (hex) of what is sealed. Once that is deleted, and the salt with it, nobody can try
    what it might have been.
    """
    return _digest("content", content)


def link_hash(previous: str, number: int, content: str) -> str:
    """SHA-256 (hex) of a link: its number, its content's hash, and the link before it."""
    return _digest("link", f"{previous} {number} {content}")


def _digest(purpose: str, *parts: bytes | str) -> str:
    digest = hashlib.sha256(f"fedgrpo experience {purpose}\n".encode())
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
