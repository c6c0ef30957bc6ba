"""What a Byzantine client sends instead of its own update.

An attack works on the normalised release vector, the one that the honest path would mask and send:
clipped by the clipping norm and noised. An attacker is bound by neither, and masks hide what it
sends. That is all it can do within the protocol; breaking the protocol itself is for the secure
room's tests.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedgrpo.attacks.knowledge import Knowledge
from fedgrpo.ground.errors import AdapterError, SettingsError
from fedgrpo.ground.parts import Registry
from fedgrpo.ground.parts.names import part_name

Floats = NDArray[np.float64]

Attack = Callable[..., Floats]
"""``(vector, knowledge, **options) -> sent``: a pure function from the honest vector to the one
that is sent, of the same shape. Options are keywords with a default.
"""

ATTACKS: Registry[Attack] = Registry("simulation.attack")
register_attack = ATTACKS.register

EVERYBODY: set[str] = set()
"""Built-in attacks that need what others send."""


def attack(name: str, *, everybody: bool = False) -> Callable[[Attack], Attack]:
    """Register the decorated built-in attack, with the option ``limited`` besides its own.

    ``limited = True`` keeps what is sent within the ball that norms are checked against or, where
    none are, within the longest honest vector that the attacker knows: so it does not stand out by
    its length.

    Parameters
    ----------
    name:
        In settings.
    everybody:
        Whether it needs what others send.
    """

    def add(function: Attack) -> Attack:
        @functools.wraps(function)
        def limitable(
            vector: Floats, knowledge: Knowledge, *, limited: bool = False, **options: Any
        ) -> Floats:
            if everybody:
                _check_everybody(name, knowledge)
            sent = function(vector, knowledge, **options)
            return shortened(sent, knowledge) if limited else sent

        parameters = list(inspect.signature(function).parameters.values())
        kind = inspect.Parameter.KEYWORD_ONLY
        option = inspect.Parameter("limited", kind, default=False, annotation=bool)
        limitable.__signature__ = inspect.Signature([*parameters, option])  # type: ignore[attr-defined]
        limitable.__annotations__ = {**function.__annotations__, "limited": bool}
        if everybody:
            EVERYBODY.add(name)
        return register_attack(name)(limitable)

    return add


def shortened(sent: Floats, knowledge: Knowledge) -> Floats:
    """What is sent, its update and the figures after it each no longer than what passes unnoticed:
    see :func:`attack`.
    """
    known = knowledge.own if knowledge.honest is None else knowledge.honest
    cut = knowledge.update
    update = knowledge.radius or _longest(known[:, :cut])
    return np.concatenate(
        [_within(sent[:cut], update), _within(sent[cut:], _longest(known[:, cut:]))]
    )


def check_attack(name: str) -> None:
    """Refuse an attack that needs what others send, for a simulation that cannot tell it.

    Raises
    ------
    SettingsError
        If it is one of :data:`EVERYBODY`.
    """
    if part_name(name) in EVERYBODY:
        raise _unknowing(name)


def _check_everybody(name: str, knowledge: Knowledge) -> None:
    if knowledge.honest is None or not len(knowledge.honest):
        raise _unknowing(name)


def _unknowing(name: str) -> SettingsError:
    return SettingsError(
        f"simulation.attack = {name!r} needs what others send, and here a client sees only its own",
        cure="simulate in one process (fedgrpo simulate without Ray), or choose an attack on own "
        "data, such as fang_own",
    )


def _longest(vectors: Floats) -> float:
    return float(np.linalg.norm(vectors, axis=1).max(initial=0.0))


def _within(vector: Floats, bound: float) -> Floats:
    norm = float(np.linalg.norm(vector))
    return vector * (bound / norm) if norm > bound else vector


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
