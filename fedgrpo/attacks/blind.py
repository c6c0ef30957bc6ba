"""Attacks that need nobody's data, the attacker's own neither."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.attacks import attack, register_attack
from fedgrpo.attacks.knowledge import Knowledge

Floats = NDArray[np.float64]

MALFORMED = ("nan_message",)
"""Attacks whose vector leaves as it is, to be refused by whoever reads it."""


@attack("zero")
def zero(vector: Floats, _: Knowledge) -> Floats:
    """Contribute nothing: a free-rider (arXiv 1911.12560)."""
    return np.zeros_like(vector)


@attack("gaussian")
def gaussian(vector: Floats, knowledge: Knowledge) -> Floats:
    """Noise of L2 norm ``boost`` on average (arXiv 1811.03761); another vector for each colluder
    that has another of its own.
    """
    place = int((knowledge.own == vector).all(axis=1).argmax())
    drawn = knowledge.generator().normal(size=(place + 1, vector.size))[place]
    return np.asarray(knowledge.boost / np.sqrt(vector.size) * drawn)


@attack("constant")
def constant(vector: Floats, knowledge: Knowledge) -> Floats:
    """One value everywhere: the same-value attack (arXiv 1811.03761)."""
    return np.full_like(vector, knowledge.boost)


@register_attack("nan")
def nan(vector: Floats, _: Knowledge) -> Floats:
    """What is no number: the attacker's node makes it the largest value that is encoded."""
    return np.full_like(vector, np.nan)


@register_attack("infinity")
def infinity(vector: Floats, _: Knowledge) -> Floats:
    """Minus infinity: the attacker's node makes it the least value that is encoded."""
    return np.full_like(vector, -np.inf)


@register_attack("nan_message")
def nan_message(vector: Floats, _: Knowledge) -> Floats:
    """NaN in the message itself, which every reader has to refuse."""
    return np.full_like(vector, np.nan)


@attack("stale")
def stale(vector: Floats, knowledge: Knowledge, *, share: float = 1.0) -> Floats:
    """The first round's own release for ever: a replay (free-riding by old updates: arXiv
    1911.12560). A bias of the same signs in every round, which is what hurts.

    Options: ``share``. Below 1, the replay is brought to the own update's length, which may have
    changed since, and is this share of what is sent; the rest is the own update.
    """
    if knowledge.first is None:
        return np.asarray(vector)
    if share == 1:
        return np.asarray(knowledge.first)
    return (1 - share) * vector + share * scaled_like(knowledge.first, vector, knowledge.update)


def scaled_like(sent: Floats, vector: Floats, update: int) -> Floats:
    """A vector, its update brought to the length of another's, the figures after it the other's."""
    length = max(float(np.linalg.norm(sent[:update])), 1e-300)
    scale = float(np.linalg.norm(vector[:update])) / length
    return np.concatenate([scale * sent[:update], vector[update:]])


@attack("against_last")
def against_last(vector: Floats, knowledge: Knowledge) -> Floats:
    """Push each coordinate against the last step (arXiv 1911.11815), by ``boost`` times own spread.

    Colluders who do this agree without talking to each other. Before there is a step, the own
    update is reversed.
    """
    if knowledge.step is None:
        return -knowledge.boost * vector
    spread = float(vector.std())
    return -knowledge.boost * spread * np.sign(knowledge.step)


@attack("collude")
def collude(vector: Floats, knowledge: Knowledge) -> Floats:
    """Push each coordinate against the last step, all colluders with one and the same vector.

    Its length, ``boost``, and its signs follow from what everybody knows, so nothing needs to be
    said among colluders. A trimmed mean is non-decreasing in each input (:mod:`fedgrpo.robust`), so
    beyond the honest range no other vector bends it further against the last step. Before there is
    a step, everything is pushed one way. A weak attack all the same: steps carry momentum, so it is
    none against the next gradient (docs/robustness.md).
    """
    signs = np.ones_like(vector) if knowledge.step is None else -np.sign(knowledge.step)
    pushed: Floats = knowledge.boost / np.sqrt(vector.size) * signs
    return pushed
