"""The secret numbers of one prompt: a function of the round's key and of the prompt itself.

Nothing here counts prompts or draws from a common stream: taking one prompt out changes no other's
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedgrpo.ground.crypto import derive_key, keystream

UNIFORM_BITS = 53
"""Resolution of a uniform number: that of a float64's mantissa."""


@dataclass(frozen=True)
class Row:
    """One prompt on its way through a private round.

    The representation shows none of it, so that a row in a traceback gives nothing away.
    """

    unit: str
    """Name of the unit that it belongs to."""
    ordinal: int
    """Place among the unit's rows."""
    index: int
    """Position among the site's rows."""
    key: bytes
    """32 secret bytes of this prompt in this round."""
    ids: tuple[int, ...]
    """Token ids."""

    def __repr__(self) -> str:
        return "Row()"


def row_key(key: bytes, unit: str, ordinal: int) -> bytes:
    """Key (32 bytes) of a prompt in a round: the ``ordinal``-th of its unit's rows."""
    return derive_key(key, "prompt", unit, ordinal)


def uniforms(key: bytes, group: int, length: int) -> Tensor:
    """Uniform numbers in [0, 1) for every token of a prompt's group, float64, shape (G, T).

    AES-256-CTR under the prompt's key, 53 bits each.
    """
    stream = keystream(derive_key(key, "tokens"), 8 * group * length)
    words = np.frombuffer(bytes(stream), "<u8") >> np.uint64(64 - UNIFORM_BITS)
    return torch.from_numpy(words * 2.0**-UNIFORM_BITS).view(group, length)
