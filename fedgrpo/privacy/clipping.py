"""Bounding one unit's contribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import PrivacyError


@dataclass(frozen=True)
class ClipResult:
    """A vector within the clipping norm, and what it was before."""

    vector: NDArray[np.float64]
    """float64, shape (d,), L2 norm at most C."""
    norm: float
    """L2 norm before clipping: infinite if it exceeds float64, 0 for a vector that was not finite.
    """
    clipped: bool
    """Whether the vector was scaled down."""
    finite: bool
    """False if a coordinate was NaN or infinite, which makes the whole vector zero."""


def clip(vector: NDArray[Any], norm: float) -> ClipResult:
    """Scale a vector down to L2 norm C where it is longer.

    Total: any vector of real numbers gives a result, because a client that fails on its own bad
    step would show by its absence what its data did. A NaN or infinite coordinate says nothing
    about the direction, so such a vector contributes nothing. Raises PrivacyError if ``norm`` is
    out of range or ``vector`` is not one-dimensional.

    Parameters
    ----------
    vector:
        Shape (d,), any real dtype.
    norm:
        Clipping norm C, positive and finite.

    Returns
    -------
    ClipResult
        ``vector`` has norm at most C up to float64 rounding (a relative 1e-12, which moves epsilon
        as little).
    """
    if not (math.isfinite(norm) and norm > 0):
        raise PrivacyError(
            f"clipping norm = {norm} is not a positive finite number",
            cure="set privacy.clipping_norm to a typical norm on public prompts",
        )
    values = np.array(vector, dtype=np.float64)
    if values.ndim != 1:
        raise PrivacyError(
            f"an array of shape {values.shape} cannot be clipped as one unit", cure="flatten it"
        )
    if not np.isfinite(values).all():
        return ClipResult(np.zeros_like(values), norm=0.0, clipped=False, finite=False)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return ClipResult(values, norm=0.0, clipped=False, finite=True)
    # Squares of the coordinates themselves may overflow or vanish; those of the direction cannot.
    direction = values / largest
    length = float(np.linalg.norm(direction))
    before = largest * length
    if before <= norm:
        return ClipResult(values, norm=before, clipped=False, finite=True)
    return ClipResult(direction * (norm / length), norm=before, clipped=True, finite=True)
