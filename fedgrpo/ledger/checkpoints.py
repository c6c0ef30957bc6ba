"""Signed statements that a ledger of so many entries has this root.

The signed text is that of C2SP's tlog-checkpoint: origin, size and root, a line each. Server and
members sign it under different labels, so that no signature serves in the place of another.

Adversary: whoever changes a ledger after it was written, without the server's key; and a server
that shows two ledgers of one run to different readers, against which members co-sign: each signs
only what extends what it signed before, so a fork needs the keys of all members whom a reader asks
for. A ledger proves that nobody changed the record; it does not prove that a client trained
honestly, nor that a server which holds the key wrote the truth.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedgrpo.ground.records import Record

SERVER, MEMBER = b"fedgrpo ledger, server\n", b"fedgrpo ledger, member\n"
"""Labels under which each role signs."""


@dataclass(frozen=True)
class Checkpoint(Record):
    """A ledger of so many entries has this root."""

    run: str
    size: int
    """Entries, the head included."""
    root: str
    """RFC 6962 root over them (hex)."""

    @property
    def body(self) -> bytes:
        """What is signed."""
        root = base64.b64encode(bytes.fromhex(self.root)).decode()
        return f"fedgrpo/{self.run}\n{self.size}\n{root}\n".encode()


@dataclass(frozen=True)
class Cosignature(Record):
    """A member's signature under a checkpoint."""

    checkpoint: Checkpoint
    """What it vouches for."""
    member: str
    """Its Ed25519 key (hex), which the rounds that it computed name."""
    signature: str
    """Over label and body (hex)."""

    @property
    def holds(self) -> bool:
        """Whether the member made it."""
        return is_signed(self.checkpoint, self.signature, self.member, MEMBER)


def public_key(seed: bytes) -> str:
    """Return the Ed25519 public key (hex) of a 32-byte secret."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()


def sign(checkpoint: Checkpoint, seed: bytes, label: bytes = SERVER) -> str:
    """Sign a checkpoint in one's role; 64 bytes (hex), always the same."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(label + checkpoint.body).hex()


def cosign(checkpoint: Checkpoint, seed: bytes) -> Cosignature:
    """Vouch for a checkpoint as a member.

    Call it only on a checkpoint of a ledger that :func:`fedgrpo.ledger.replay` accepts and that has
    among its checkpoints the one that this member co-signed before: that is what a co-signature
    says.
    """
    return Cosignature(checkpoint, public_key(seed), sign(checkpoint, seed, MEMBER))


def is_signed(checkpoint: Checkpoint, signature: str, key: str, label: bytes = SERVER) -> bool:
    """Whether a signature (hex) under a checkpoint was made with this key (hex) in this role."""
    try:
        verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
        verifier.verify(bytes.fromhex(signature), label + checkpoint.body)
    except (InvalidSignature, ValueError):
        return False
    # Hex has two letters for most digits: only one of them is the signature.
    return signature == signature.lower()
