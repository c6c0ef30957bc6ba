"""Attacks that need the attackers' own data: they know what they would have sent honestly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.attacks import attack
from fedgrpo.attacks.knowledge import Knowledge

Floats = NDArray[np.float64]


@attack("sign_flip")
def sign_flip(vector: Floats, _: Knowledge) -> Floats:
    """Own update, reversed (arXiv 1811.03761)."""
    return -vector


@attack("reverse_boost")
def reverse_boost(vector: Floats, knowledge: Knowledge) -> Floats:
    """Own update, reversed (arXiv 1811.03761) and boosted (arXiv 1807.00459)."""
    return -knowledge.boost * vector


@attack("fang_own")
def fang_own(vector: Floats, knowledge: Knowledge, *, sigmas: float = 0.0) -> Floats:
    """Against the sign of the colluders' own mean in each coordinate: directed deviation with
    partial knowledge (arXiv 1911.11815, section 4.3).

    Options: ``sigmas``, how many of the colluders' standard deviations beyond their mean, 3 to 4 in
    the paper; 0 goes beyond any range, by ``boost`` in L2.
    """
    mean, signs = knowledge.own.mean(axis=0), np.sign(knowledge.own.mean(axis=0))
    if sigmas:
        return np.asarray(mean - sigmas * knowledge.own.std(axis=0) * signs)
    return np.asarray(-knowledge.boost / np.sqrt(vector.size) * signs)


@attack("ipm_own")
def ipm_own(vector: Floats, knowledge: Knowledge, *, epsilon: float = 2.0) -> Floats:
    """The colluders' own mean, reversed: inner product manipulation (arXiv 1903.03936) by those who
    know nobody else's.

    Options: ``epsilon``, the factor. With ``limited = True`` and a large one it is the longest
    vector straight against their mean that a norm check lets pass.
    """
    return np.asarray(-epsilon * knowledge.own.mean(axis=0))
