"""What a Byzantine client sends instead of its own update.

An attack works on the normalised release vector, the one that the honest path would mask and send:
clipped by the clipping norm and noised. An attacker is bound by neither, and masks hide what it
sends. That is all it can do within the protocol; breaking the protocol itself is for the secure
room's tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.knowledge import Knowledge
from fedgrpo.ground.errors import AdapterError
from fedgrpo.ground.parts import Registry

Floats = NDArray[np.float64]

Attack = Callable[..., Floats]
"""``(vector, knowledge, **options) -> sent``: a pure function from the honest vector to the one
that is sent, of the same shape. Options are keywords with a default.
"""

ATTACKS: Registry[Attack] = Registry("simulation.attack")
register_attack = ATTACKS.register


def apply_attack(name: str, vector: Floats, knowledge: Knowledge) -> Floats:
    """Return what an attacker sends in place of its honest vector.

    Parameters
    ----------
    name:
        What ``simulation.attack`` names.
    vector:
        float64, shape (size,): what the client would send honestly. It is not changed.
    knowledge:
        What it knows.

    Returns
    -------
    ndarray of float64, shape (size,)
        A new array.

    Raises
    ------
    SettingsError
        If there is no such attack.
    AdapterError
        If what is known, or what the attack returns, has another shape than goes with ``vector``.
    """
    attack = ATTACKS[name]
    knowledge.check(vector.size)
    sent = np.array(attack(vector, knowledge), dtype=np.float64)
    if sent.shape != vector.shape:
        raise AdapterError(
            f"simulation.attack = {name!r} returned shape {sent.shape}, not {vector.shape}",
            cure="return one number for each of the honest vector",
        )
    return sent


@register_attack("reverse_boost")
def _reverse_boost(vector: Floats, knowledge: Knowledge) -> Floats:
    """Own update, reversed (arXiv 1811.03761) and boosted (arXiv 1807.00459)."""
    return -knowledge.boost * vector


@register_attack("constant")
def _constant(vector: Floats, knowledge: Knowledge) -> Floats:
    """One value everywhere: the same-value attack (arXiv 1811.03761)."""
    return np.full_like(vector, knowledge.boost)


@register_attack("against_last")
def _against_last(vector: Floats, knowledge: Knowledge) -> Floats:
    """Push each coordinate against the last step (arXiv 1911.11815), by ``boost`` times own spread.

    Colluders who do this agree without talking to each other. Before there is a step, the own
    update is reversed.
    """
    if knowledge.step is None:
        return _reverse_boost(vector, knowledge)
    spread = float(vector.std())
    return -knowledge.boost * spread * np.sign(knowledge.step)


@register_attack("collude")
def _collude(vector: Floats, knowledge: Knowledge) -> Floats:
    """Push each coordinate against the last step, all colluders with one and the same vector.

    Its length, ``boost``, and its signs follow from what everybody knows, so nothing needs to be
    said among colluders. A trimmed mean is non-decreasing in each input (:mod:`fedgrpo.robust`), so
    beyond the honest range no other vector bends it further against the last step. Before there is
    a step, everything is pushed one way.
    """
    signs = np.ones_like(vector) if knowledge.step is None else -np.sign(knowledge.step)
    pushed: Floats = knowledge.boost / np.sqrt(vector.size) * signs
    return pushed


@register_attack("zero")
def _zero(vector: Floats, _: Knowledge) -> Floats:
    """Contribute nothing: a free-rider (arXiv 1911.12560)."""
    return np.zeros_like(vector)


@register_attack("nan")
def _nan(vector: Floats, _: Knowledge) -> Floats:
    """Send what is no number: tests that every station refuses it."""
    return np.full_like(vector, np.nan)
