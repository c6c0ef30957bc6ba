"""Soft overlong punishment: a reward that falls near the length limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedgrpo.ground.errors import SettingsError


def soft_overlong(lengths: ArrayLike, limit: int, buffer: float) -> NDArray[np.float64]:
    """Zero up to ``limit - buffer`` tokens, then falling linearly to -1 at the limit and beyond
    (DAPO, arXiv 2503.14476, equation 13).

    A completion that runs long is punished before it is cut, so truncation comes as no surprise
    that depends on luck.

    Parameters
    ----------
    lengths:
        Tokens a completion, any shape.
    limit:
        Longest completion, in tokens.
    buffer:
        Tokens over which the punishment grows, in (0, limit].

    Returns
    -------
    float64 in [-1, 0], shape of ``lengths``.

    Raises
    ------
    SettingsError
        If the buffer is not within the limit.
    """
    if not 0 < buffer <= limit:
        raise SettingsError(
            f"overlong buffer = {buffer} tokens is not within the limit of {limit}",
            cure="set grpo.overlong_share in (0, 1]",
        )
    excess = np.asarray(lengths, dtype=np.float64) - (limit - buffer)
    return -np.clip(excess / buffer, 0.0, 1.0)
