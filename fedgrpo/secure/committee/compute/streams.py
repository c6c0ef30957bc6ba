"""What a round draws from component keys: masks, and tags that check one member by another."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedgrpo.ground.crypto import KeyStream
from fedgrpo.secure.committee.compute.planes import Words

TAG_BYTES = 16
"""Length of a tag."""


class MaskStream:
    """AES-256-CTR key stream, handed out piece by piece and never twice.

    Parameters
    ----------
    key:
        32 bytes, used for this stream only.
    """

    def __init__(self, key: bytes) -> None:
        self._stream = KeyStream(key)

    def words(self, count: int) -> Words:
        """Return the next words of the stream; uint64, shape (count,)."""
        return np.frombuffer(self._stream.take(8 * count), "<u8").astype(np.uint64, copy=False)


def tag(key: bytes, number: int, message: Words) -> bytes:
    """AES-256-GMAC of a message (NIST SP 800-38D), 16 bytes.

    Adversary: the sender of the message, who does not hold the key. A message that differs in any
    bit gets the same tag with probability at most ``length in blocks / 2**128``, whatever the
    sender tries, so a tag says as much as a hash would, at a tenth of the cost.

    Parameters
    ----------
    key:
        32 bytes that receiver and checker hold and the sender does not.
    number:
        Never the same twice under one key.
    message:
        What the sender should have sent.
    """
    mac = Cipher(algorithms.AES256(key), modes.GCM(number.to_bytes(12, "little"))).encryptor()
    mac.authenticate_additional_data(message.astype("<u8", copy=False).view(np.uint8).data)
    mac.finalize()
    return mac.tag


def to_bytes(words: Words) -> bytes:
    """Words as they travel, little-endian."""
    return words.astype("<u8", copy=False).tobytes()
