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

from fedgrpo.ground.codec import Digest
from fedgrpo.ground.errors import AdapterError

LARGEST = 1e6
"""Greatest absolute value in an adapter. Far beyond what training reaches; a factor of it is far
below where float32 ends.
"""


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
    layout: Digest

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


def check_values(vector: NDArray[np.generic], basis: Mapping[str, NDArray[np.generic]]) -> None:
    """Refuse values that no training makes, before they are used or hashed.

    Adversary: a server whose adapter gives NaN, or overflows, only where a chosen token occurs.
    Values within bounds do not rule that out on the way through the model, where a prompt's failure
    costs its own row alone; they keep it from being as easy as a NaN in the basis.

    Parameters
    ----------
    vector:
        Trainable values: float32, shape (d,), d >= 1.
    basis:
        Frozen tensors: float32.

    Raises
    ------
    AdapterError
        Names the tensor by its place, not by what its sender calls it, and what is wrong with it.
    """
    if vector.ndim != 1 or vector.size == 0:
        raise AdapterError(f"adapter vector of shape {vector.shape} is not one row", cure=_CURE)
    _check_tensor("adapter vector", vector)
    for number, name in enumerate(sorted(basis)):
        _check_tensor(f"frozen tensor {number} of the adapter", basis[name])


_CURE = "see the server's log: an optimiser step diverged, or the adapter is no float32 one"


def _check_tensor(what: str, values: NDArray[np.generic]) -> None:
    if values.dtype != np.float32:
        raise AdapterError(f"{what} is {values.dtype}, not float32", cure=_CURE)
    # NaN is not within the bounds either.
    if bad := int(np.count_nonzero(~(np.abs(values) <= LARGEST))):
        raise AdapterError(
            f"{what} has {bad} of {values.size} values that are not finite or beyond {LARGEST:g}",
            cure=_CURE,
        )
