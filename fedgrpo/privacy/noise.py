"""Gaussian noise that an adversary can neither predict nor see through."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from fedgrpo.ground.crypto import derive_key, keystream, new_key
from fedgrpo.ground.errors import PrivacyError

_GRID_BITS = 6
"""Released values lie on a grid of 64 to 128 steps a standard deviation of the noise. Coarse enough
to hide float64's rounding errors, fine enough to add at most 2e-5 of the variance."""


def gaussian_noise(size: int, std: float, key: bytes | None = None) -> NDArray[np.float64]:
    """Draw independent N(0, std^2) values from AES-256-CTR under a key of their own.

    Adversary: anyone who sees what the noise was added to, however many earlier draws they know.
    They cannot tell the keystream from random bits without breaking AES; a seeded generator such as
    Mersenne Twister would be recovered from its outputs.

    Each value takes 128 bits: a sign and a uniform number in (0, 1/2] that keeps 53 significant
    bits however small it is, mapped by the inverse normal distribution function. Inversion rather
    than Box-Muller: as fast here (12 ms a million), each value depends on bits of its own, and one
    monotone map makes the error bound of :func:`add_noise` a short argument. Do not add the result
    to a secret yourself: low bits of a float64 sum tell which sums are reachable (Mironov 2012, "On
    significance of the least significant bits for differential privacy"). :func:`add_noise` rounds
    them away. Raises PrivacyError if ``size`` or ``std`` is out of range.

    Parameters
    ----------
    size:
        Number of values, at least 0.
    std:
        Standard deviation, finite and not negative. 0 returns zeros and draws nothing.
    key:
        32 secret bytes that serve this one draw. None takes fresh ones of the operating system.

    Returns
    -------
    NDArray[np.float64]
        Shape (size,).
    """
    _check(size, std)
    if std == 0 or size == 0:
        return np.zeros(size)
    stream = keystream(new_key() if key is None else key, 16 * size)
    high, low = np.frombuffer(stream, dtype=np.uint64, count=2 * size).reshape(2, size)
    # The low word's last bit is the sign; as a magnitude bit it is set, to keep the uniform off 0.
    uniform = high * 2.0**-65 + (low | np.uint64(1)) * 2.0**-129
    magnitude = ndtri(uniform) * -std
    noise: NDArray[np.float64] = np.where(low & np.uint64(1), magnitude, -magnitude)
    stream[:] = bytes(len(stream))
    return noise


def add_noise(
    vector: NDArray[np.float64], std: float, key: bytes | None = None
) -> NDArray[np.float64]:
    """Add Gaussian noise and round to a coarse grid, so that float64 arithmetic leaks nothing.

    Rounding comes after the noise and looks at nothing else, so it is post-processing. The grid is
    a power of two between std/128 and std/64, so a fixed-point encoder, whose grid is a finer power
    of two, represents it exactly.

    What is left of the floating-point channel: the sum computed for a coordinate y differs from the
    ideal y + x by at most e = 2^-50 |x| + 2^-51 std + 2^-53 |y| (the inverse's relative error,
    2^-51 against a 40-digit computation; the uniform's 2^-52; one product; one addition). Only mass
    that close to a boundary of the grid changes its cell, and a cell is at least std/128 wide, so
    for |x| <= 10 std each cell's probability is the ideal one up to a factor e^r, with r <= 2^-38 +
    2^-44 |y|/std. Hence d coordinates are within total variation d (2^-39 + 2^-45 |y|/std + 2^-75)
    of the ideal Gaussian rounded to the grid, 1e-8 for d = 5,632; and a release costs at most 2 d r
    of epsilon (4e-8) and (1 + e^epsilon) d 2^-75 of delta beyond what the accountant states.

    Under a key, the result is a function of the key, the secret and ``std``: what is computed again
    after a crash comes out the same, bit for bit, so whoever sees both sees one release. The stream
    is derived from the hash of the secret, as deterministic signatures do it (RFC 6979). So one key
    never hides two different secrets under the same noise, whose difference would show; that
    matters where a computation does not repeat exactly, as on a GPU. Proof for one call: HKDF is a
    pseudorandom function under the key, so for each secret the stream at that secret's input is
    indistinguishable from uniform bits, and the result from the same call without a key. For many
    calls under one key: their inputs are equal, and the results too; or differ, and the streams are
    jointly indistinguishable from independent ones. The second case is as many releases to account
    for as there are different secrets. Raises PrivacyError if ``vector`` is not a finite vector or
    ``std`` is out of range.

    Parameters
    ----------
    vector:
        float64, shape (d,), finite: the secret.
    std:
        Standard deviation a coordinate. 0 returns a copy, unrounded.
    key:
        32 secret bytes. None takes fresh ones of the operating system.

    Returns
    -------
    NDArray[np.float64]
        Shape (d,).
    """
    secret = np.array(vector, dtype=np.float64)
    if secret.ndim != 1 or not np.isfinite(secret).all():
        raise PrivacyError(
            f"noise cannot hide an array of shape {secret.shape} that is not a finite vector",
            cure="clip it with fedgrpo.privacy.clip first, which turns NaN and infinity into zeros",
        )
    if std == 0:
        return secret
    own = None if key is None else derive_key(key, "noise", std.hex(), _digest(secret))
    noisy = secret + gaussian_noise(secret.size, std, own)
    step = _grid_step(std)
    return np.rint(noisy / step) * step


def _grid_step(std: float) -> float:
    """Largest power of two that is at most std / 64."""
    return math.ldexp(1.0, math.frexp(std)[1] - 1 - _GRID_BITS)


def _digest(vector: NDArray[np.float64]) -> str:
    return hashlib.sha256(vector.tobytes()).hexdigest()


def _check(size: int, std: float) -> None:
    if size < 0:
        raise PrivacyError(f"noise of size = {size} cannot be drawn", cure="ask for at least 0")
    if not (math.isfinite(std) and std >= 0):
        raise PrivacyError(
            f"noise standard deviation = {std} is not a finite number of at least 0",
            cure="derive it from privacy.noise_multiplier and the sensitivity",
        )
