"""The cryptography, each piece a thin call into a kept library.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256-GCM, AES-256-CTR and SHA-256 come from
``cryptography``; Shamir's scheme over GF(2^128) comes from ``pycryptodome`` and shares a 32-byte
secret as two independent halves. Every key is derived under a context that names the protocol, the
purpose, the round and the parties, so that no key serves twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError

SECRET_BYTES = 32
"""Length of keys, seeds, commitments and of one share of any of them."""
NONCE_BYTES = 12
"""Length of AES-GCM's nonce."""
TAG_BYTES = 16
"""Length of AES-GCM's tag."""
_HALF = SECRET_BYTES // 2


def new_private_key() -> bytes:
    """Draw an X25519 private key (32 bytes) from the operating system."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """Return the X25519 public key (32 bytes) of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, context: bytes) -> bytes:
    """Derive the 32-byte key that two parties share, for one purpose.

    Raises
    ------
    ProtocolError
        If the public key has a wrong length or low order: the shared key would be known to
        everyone.
    """
    try:
        peer = X25519PublicKey.from_public_bytes(public)
        shared = X25519PrivateKey.from_private_bytes(private).exchange(peer)
    except ValueError:
        raise ProtocolError(
            f"public key {public.hex()} is not a usable X25519 key (wrong length or low order)",
            cure="leave out the node that sent it",
        ) from None
    return derive(shared, context)


def derive(secret: bytes, context: bytes) -> bytes:
    """Derive a 32-byte key from a secret by HKDF-SHA256, bound to ``context``."""
    return HKDF(hashes.SHA256(), SECRET_BYTES, salt=None, info=context).derive(secret)


def commit(seed: bytes, context: bytes) -> bytes:
    """Commit to a uniformly random 32-byte seed by SHA-256.

    Binding, as nobody finds collisions; hiding, as nobody guesses 256 random bits (random oracle).
    """
    return hashlib.sha256(context + seed).digest()


def keystream(key: bytes, words: int) -> NDArray[np.uint32]:
    """Expand a 32-byte key, used only once, by AES-256-CTR to uniform uint32, shape (words,)."""
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * words)), dtype="<u4").astype(
        np.uint32, copy=False
    )


def seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate with AES-256-GCM; the result is nonce, ciphertext and tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes | None:
    """Invert :func:`seal`; None if the ciphertext was not made with this key and context."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except InvalidTag:
        return None


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
