"""A round's vectors on the server: in memory up to a bound, beyond it on the disk, encrypted."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from fedgrpo.ground.crypto import new_key
from fedgrpo.ground.errors import RunError

IN_MEMORY = 256 << 20
"""Bytes of a round's vectors that are kept in memory."""
_CIPHER_BLOCK = 16

Vector = NDArray[Any]


class Spool:
    """Vectors of one length and of four bytes a value, read in pieces.

    Adversary of what is on the disk: whoever reads it, now or later. It is a file without a name,
    of this process's user alone, encrypted by AES-256-CTR under a key that is drawn for it and is
    nowhere but in this process's memory; each vector has a counter range of its own and is written
    once. Masked vectors are uniform without that; those of a trusted server are not.

    Parameters
    ----------
    size:
        Values of each vector.
    dtype:
        Their type, of four bytes.
    in_memory:
        Bytes of them that are kept in memory.
    """

    def __init__(self, size: int, dtype: type[np.generic], in_memory: int = IN_MEMORY) -> None:
        self.size, self._dtype = size, np.dtype(dtype)
        self._bytes = size * self._dtype.itemsize
        self._most = in_memory // max(1, self._bytes)
        self._kept: list[Vector] = []
        self._file: _Encrypted | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, vector: Vector) -> int:
        """Keep a vector, shape (size,), and return its place; raises RunError if the disk is
        full.
        """
        if len(self._kept) < self._most:
            self._kept.append(np.array(vector, self._dtype))
        else:
            self._file = self._file or _Encrypted(self._bytes)
            self._file.write(self._count - len(self._kept), vector.astype(self._dtype, copy=False))
        self._count += 1
        return self._count - 1

    def read(self, place: int, block: slice) -> Vector:
        """Return consecutive values of a vector."""
        if place < len(self._kept):
            return self._kept[place][block]
        assert self._file is not None
        width = self._dtype.itemsize
        content = self._file.read(place - len(self._kept), block.start * width, block.stop * width)
        return np.frombuffer(content, self._dtype)


class _Encrypted:
    """Rows of bytes in a file that nobody else can read."""

    def __init__(self, row_bytes: int) -> None:
        self._row_bytes, self._key = row_bytes, new_key()
        folder = os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else None)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - gone with it

    def write(self, row: int, values: Vector) -> None:
        plain = np.ascontiguousarray(values).view(np.uint8).data
        sealed = memoryview(self._cipher(row, 0).update(plain))
        place = row * self._row_bytes
        try:
            while sealed:
                written = os.pwrite(self._file.fileno(), sealed, place)
                sealed, place = sealed[written:], place + written
        except OSError as error:
            raise RunError(
                f"a round's vectors do not fit the disk: {error.strerror}",
                cure="make room, or set TMPDIR to a folder on a disk that has some",
            ) from None

    def read(self, row: int, start: int, stop: int) -> bytes:
        first = start - start % _CIPHER_BLOCK
        sealed = os.pread(self._file.fileno(), stop - first, row * self._row_bytes + first)
        return self._cipher(row, first // _CIPHER_BLOCK).update(sealed)[start - first :]

    def _cipher(self, row: int, block: int) -> CipherContext:
        """The key stream of a row, from a block on: rows differ in the counter's upper half."""
        counter = (row << 64 | block).to_bytes(_CIPHER_BLOCK, "big")
        return Cipher(algorithms.AES256(self._key), modes.CTR(counter)).encryptor()
