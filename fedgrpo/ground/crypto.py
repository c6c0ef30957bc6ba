"""Secrets drawn once from the operating system, and keys derived from them.

Randomness that a repeated round must repeat, and that nobody else may predict, is a function of a
secret and of everything that makes the round what it is. HKDF-SHA256 (RFC 5869) is a
pseudorandom function of its input under a uniform key, so keys derived for different purposes or
contexts look independent and uniform to whoever does not hold the secret, however many other
derived keys they hold; AES-256-CTR expands a key into a stream.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import make_file

KEY_BYTES = 32
"""Length of secrets and keys."""

_TAG = 16
"""Bytes that place one item in a shuffle: two are equal with probability 2^-128."""

T = TypeVar("T")


def new_key() -> bytes:
    """Draw a key (32 bytes) from the operating system."""
    return os.urandom(KEY_BYTES)


def kept_key(path: Path) -> bytes:
    """Read the secret (32 bytes) that a file keeps, which is made with mode 0600 if need be.

    Adversary: other users of the machine. Whoever reads it can take off all noise that was drawn
    with it, so a file that others may read is refused.

    Raises
    ------
    RunError
        If the file is damaged, or others may read it.
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


def derive_key(key: bytes, purpose: str, *context: str | int) -> bytes:
    """Derive a key (32 bytes) for one purpose in one context.

    Different arguments are different inputs of HKDF: JSON writes each list in a way of its own.
    """
    info = json.dumps(["fedgrpo", 1, purpose, *context]).encode()
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(key)


def keystream(key: bytes, length: int) -> bytearray:
    """Expand a key, used only once, to ``length`` bytes by AES-256-CTR."""
    # A zero nonce is safe: the key is used for this one stream only.
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    stream = bytearray(length + 15)
    encryptor.update_into(bytes(length), stream)
    encryptor.finalize()
    del stream[length:]
    return stream


def shuffled(items: Sequence[T], key: bytes) -> list[T]:
    """Put items in an order that is uniform for whoever does not hold the key, used only once."""
    tags = bytes(keystream(key, _TAG * len(items)))
    order = sorted(range(len(items)), key=lambda i: tags[_TAG * i : _TAG * (i + 1)])
    return [items[i] for i in order]
