"""The adapter: what is trained, as modules for torch and as one flat float32 vector for everybody
else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgrpo.errors import AdapterError


@dataclass(frozen=True)
class AdapterState:
    """An adapter as it travels.

    Attributes
    ----------
    vector:
        Float32, shape (d,): every trainable value, by sorted parameter name.
    basis:
        Frozen tensors of the adapter (A of FFA-LoRA; SVD factors and projections of TinyLoRA). The
        server makes them once and everybody uses its copy: an SVD basis differs between machines
        and thread counts.
    layout:
        SHA-256 (hex) of base model, kind, scale, names and shapes. Both sides compute it and
        compare.
    """

    vector: NDArray[np.float32]
    basis: Mapping[str, NDArray[np.generic]]
    layout: str

    @property
    def vector_hash(self) -> str:
        """SHA-256 (hex) of the trainable values."""
        return hashlib.sha256(np.ascontiguousarray(self.vector).tobytes()).hexdigest()

    @property
    def basis_hash(self) -> str:
        """SHA-256 (hex) of the frozen tensors, by which a node pins them for the whole run."""
        digest = hashlib.sha256()
        for name in sorted(self.basis):
            array = np.ascontiguousarray(self.basis[name])
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def moved(self, vector: NDArray[np.floating]) -> AdapterState:
        """Return the same adapter at other trainable values."""
        if vector.shape != self.vector.shape:
            raise AdapterError(
                f"adapter vector has shape {vector.shape}, expected {self.vector.shape}",
                cure="use the same adapter settings everywhere",
            )
        return AdapterState(vector.astype(np.float32), self.basis, self.layout)
