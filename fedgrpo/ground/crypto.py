"""The cryptography, each piece a thin call into ``cryptography``: secrets, keys, streams, seals.

Randomness that a repeated round must repeat, and that nobody else may predict, is a function of a
secret and of everything that makes the round what it is. HKDF-SHA256 (RFC 5869) is a
pseudorandom function of its input under a uniform key, so keys derived for different purposes or
contexts look independent and uniform to whoever does not hold the secret, however many other
derived keys they hold; AES-256-CTR expands a key into a stream. Keys that two parties share come
from X25519 (RFC 7748), and what only they may read is sealed by AES-256-GCM. Every key is derived
under a context that names its purpose, round and parties, so that no key serves twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError, RunError
from fedgrpo.ground.files import make_file

KEY_BYTES = 32
"""Length of secrets, keys, seeds, commitments, and of one share of any of them."""
NONCE_BYTES, SEAL_BYTES = 12, 16
"""Length of AES-GCM's nonce and of its tag."""

_ZEROS, _SLACK = bytes(1 << 20), 15
"""Encrypted at a time; and the room behind it that the cipher wants, a block less a byte."""

_TAG = 16
"""Bytes that place one item in a shuffle: two are equal with probability 2^-128."""

T = TypeVar("T")


def new_key() -> bytes:
    """Draw a key (32 bytes) from the operating system."""
    return os.urandom(KEY_BYTES)


def kept_key(path: Path) -> bytes:
    """Read the secret (32 bytes) that a file keeps, which is made with mode 0600 if need be.

    Adversary: other users of the machine. Whoever reads it can take off all noise that was drawn
    with it, so a file that others may read is refused. Raises RunError if the file is damaged, or
    others may read it.
    """
    if not path.exists():
        make_file(path, new_key())
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        open_to = stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077
        secret = os.read(descriptor, KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if open_to:
        raise RunError(
            f"other users may read or write the secret {path}",
            cure=f"chmod 600 {path}, if nobody has; else begin anew in another directory",
        )
    if len(secret) != KEY_BYTES:
        raise RunError(
            f"the secret {path} has {len(secret)} bytes, not {KEY_BYTES}",
            cure="restore it, or begin anew in another directory",
        )
    return secret


def derive(secret: bytes, context: bytes) -> bytes:
    """Derive a 32-byte key from a secret by HKDF-SHA256, bound to ``context``."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=context).derive(secret)


def derive_key(key: bytes, purpose: str, *context: str | int) -> bytes:
    """Derive a key (32 bytes) for one purpose in one context.

    Different arguments are different inputs of HKDF: JSON writes each list in a way of its own.
    """
    info = json.dumps(["fedgrpo", 1, purpose, *context]).encode()
    return derive(key, info)


class KeyStream:
    """AES-256-CTR under a key that is used only once, handed out piece by piece and never twice.

    Pieces of any lengths, one after the other, are the stream.
    """

    def __init__(self, key: bytes) -> None:
        # A zero nonce is safe: the key is used for this one stream only.
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def take(self, length: int) -> bytearray:
        """Return the next bytes."""
        stream = bytearray(length + _SLACK)
        with memoryview(stream) as room:
            for start in range(0, length, len(_ZEROS)):
                self._encryptor.update_into(_ZEROS[: length - start], room[start:])
        del stream[length:]
        return stream

    def words(self, count: int) -> NDArray[np.uint32]:
        """Return the next bytes as uniform uint32, shape (count,)."""
        return np.frombuffer(self.take(4 * count), dtype="<u4").astype(np.uint32, copy=False)


def keystream(key: bytes, length: int) -> bytearray:
    """Expand a key, used only once, to ``length`` bytes by AES-256-CTR."""
    return KeyStream(key).take(length)


def stream_words(key: bytes, count: int) -> NDArray[np.uint32]:
    """Expand a key, used only once, to uniform uint32, shape (count,)."""
    return KeyStream(key).words(count)


def shuffled(items: Sequence[T], key: bytes) -> list[T]:
    """Put items in an order that is uniform for whoever does not hold the key, used only once."""
    tags = bytes(keystream(key, _TAG * len(items)))
    order = sorted(range(len(items)), key=lambda i: tags[_TAG * i : _TAG * (i + 1)])
    return [items[i] for i in order]


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


def commit(seed: bytes, context: bytes) -> bytes:
    """Commit to a uniformly random 32-byte seed by SHA-256.

    Binding, as nobody finds collisions; hiding, as nobody guesses 256 random bits (random oracle).
    """
    return hashlib.sha256(context + seed).digest()


def seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate with AES-256-GCM; the result is nonce, ciphertext and tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes | None:
    """Invert :func:`seal`; None if the ciphertext was not made with this key and context."""
    if len(sealed) < NONCE_BYTES + SEAL_BYTES:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except InvalidTag:
        return None
