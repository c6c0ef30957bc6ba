"""Offset binary: what the committee sorts, and a norm that rounding never raises.

A coordinate x becomes the w-bit integer ``round(x / step) + 2^(w - 1)``, so that integers are in
the order of the values and comparing them as bit strings compares the values. Zero is on the grid.

The range R holds every coordinate or saturates it. Up to 10,000 coordinates ``R = C``, the clipping
norm, and nothing saturates: at 16 bits the rounding slack ``step * sqrt(d) / 2`` is at most 0.15%
of C. Beyond, ``R = C / 4``: the slack at 10^6 coordinates is 0.4% of C where R = C would cost 1.5%,
and at most 16 coordinates of a vector of norm C can reach past R, which saturate. That shrinks the
vector, so it costs a little signal of a lopsided update and no privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.encoding import check_finite

LONG_VECTOR = 10_000
"""Coordinates up to which the range is the clipping norm."""
_LONG_RANGE = 4
_FLOAT_MARGIN = 2.0**-30
"""Of the norm: more than float64 can lose in taking it and in dividing by the step."""


@dataclass(frozen=True)
class Encoding:
    """How the vectors of one round become integers; public, and the same for all. Raises
    ProtocolError if a parameter is out of range, or so few bits are given that rounding could cost
    half the norm.

    Parameters
    ----------
    clipping_norm:
        C, L2 norm that no encoded vector exceeds, positive.
    dimension:
        d, coordinates of a vector, at least 1.
    bits:
        w, bits of a coordinate, 2 to 24.
    """

    clipping_norm: float
    dimension: int
    bits: int = 16

    def __post_init__(self) -> None:
        finite = math.isfinite(self.clipping_norm) and self.clipping_norm > 0
        if not (finite and self.dimension >= 1 and 2 <= self.bits <= 24):
            raise ProtocolError(
                f"no encoding has clipping norm {self.clipping_norm}, {self.dimension} coordinates "
                f"and {self.bits} bits",
                cure="give a positive norm, at least one coordinate and 2 to 24 bits",
            )
        if self.slack > self.clipping_norm / 2:
            raise ProtocolError(
                f"rounding {self.dimension} coordinates to {self.bits} bits could move a vector by "
                f"{self.slack:.3g}, more than half its clipping norm {self.clipping_norm}",
                cure="use 16 bits",
            )

    @property
    def offset(self) -> int:
        """Integer that stands for zero, ``2^(w - 1)``."""
        return 1 << (self.bits - 1)

    @property
    def sensitivity(self) -> int:
        """C in steps: L2 sensitivity of the sum of kept values to zeroing one vector."""
        return self.offset if self.dimension <= LONG_VECTOR else self.offset * _LONG_RANGE

    @property
    def step(self) -> float:
        """Distance of neighbouring values."""
        return self.clipping_norm / self.sensitivity

    @property
    def slack(self) -> float:
        """Most that rounding moves a vector, in L2: ``step * sqrt(d) / 2``."""
        return self.step * math.sqrt(self.dimension) / 2

    def output_bits(self, kept: int, noise: int) -> int:
        """Width of the opened sum, wide enough never to wrap.

        Parameters
        ----------
        kept:
            Values summed in each coordinate, ``n - 2k``.
        noise:
            Largest magnitude of the joint noise in steps: four times
            :func:`~fedgrpo.secure.committee.keys.noise.largest_noise` of a share, or 0.
        """
        return (kept * self.offset + noise - 1).bit_length() + 1


def encode(values: NDArray[np.float64], encoding: Encoding) -> NDArray[np.uint32]:
    """Encode one client's vector so that its encoded norm is at most the clipping norm.

    The vector is shrunk to norm ``C - slack``, saturated at the range and rounded to nearest. Both
    ends of the range are on the grid, saturating never raises a norm and rounding moves by at most
    half a step in each coordinate, so ``norm <= (C - slack) + slack = C`` for every input: no
    conditional rounding, and the sensitivity is C surely.

    It binds nobody who does not call it: a lying client may deal any w-bit integers, which the
    trimming answers for. An honest one is protected whatever the others send. Raises ProtocolError
    if the vector has another length, a NaN or infinite value, or a norm above C.

    Parameters
    ----------
    values:
        float64, shape (d,), clipped to C already.

    Returns
    -------
    NDArray[np.uint32]
        Shape (d,), each below ``2**bits``.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (encoding.dimension,):
        raise ProtocolError(
            f"vector of shape {values.shape}, but the round's encoding has "
            f"{encoding.dimension} coordinates",
            cure="encode the adapter that this round trains, with the round's own settings",
        )
    check_finite(values)
    norm = float(np.linalg.norm(values))
    if norm > encoding.clipping_norm * (1 + 1e-6):
        raise ProtocolError(
            f"vector of norm {norm:.6g} is outside the range of clipping norm "
            f"{encoding.clipping_norm:.6g}",
            cure="clip the update before encoding it, with the norm that the server broadcast",
        )
    most = (encoding.clipping_norm - encoding.slack) * (1 - _FLOAT_MARGIN)
    scale = min(1.0, most / norm) if norm > 0 else 1.0
    steps = np.clip(values * (scale / encoding.step), -encoding.offset, encoding.offset - 1)
    return (np.rint(steps).astype(np.int64) + encoding.offset).astype(np.uint32)


def decode_sum(
    opened: NDArray[np.uint64], kept: int, bits: int, encoding: Encoding
) -> NDArray[np.float64]:
    """Decode what the committee opened; raises ProtocolError if a value does not fit the width.

    Parameters
    ----------
    opened:
        uint64, shape (d,): for each coordinate the sum of ``kept`` encoded values and the noise,
        modulo ``2**bits``.
    kept:
        Values summed, ``n - 2k``.
    bits:
        Width of the sum, at most 53: :meth:`Encoding.output_bits`.

    Returns
    -------
    NDArray[np.float64]
        Shape (d,): the sum itself, exact on the grid; divide by ``kept`` for the mean.
    """
    opened = np.asarray(opened, dtype=np.uint64)
    if opened.size and int(opened.max()) >> bits:
        raise ProtocolError(
            f"opened value {int(opened.max())} is outside the range of {bits} bits",
            cure="discard the round: see that all members run the same version",
        )
    half = 1 << (bits - 1)
    centred = (opened.astype(np.int64) - kept * encoding.offset + half) % (1 << bits) - half
    return np.asarray(centred * encoding.step, dtype=np.float64)
