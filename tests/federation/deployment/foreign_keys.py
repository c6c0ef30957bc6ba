"""Public keys that strangers may show."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FOREIGN_KEYS = {
    kind: key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for kind, key in {
        "RSA": rsa.generate_private_key(65537, 1024).public_key(),
        "Ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
        "Ed448": ed448.Ed448PrivateKey.generate().public_key(),
        "X25519": x25519.X25519PrivateKey.generate().public_key(),
        "another curve": ec.generate_private_key(ec.BrainpoolP384R1()).public_key(),
    }.items()
} | {"garbage": b"\xff\x00", "nothing": b"", "no PEM": b"-----BEGIN PUBLIC KEY-----\nAAAA\n"}
"""Public keys of strangers, none of a kind that a node has."""
