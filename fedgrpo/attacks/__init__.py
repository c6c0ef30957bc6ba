"""Faults among simulated clients: attackers, and those that drop out. No part of a deployment."""

from fedgrpo.attacks import blind, everybody, own
from fedgrpo.attacks.attacks import (
    ATTACKS,
    EVERYBODY,
    Attack,
    apply_attack,
    check_attack,
    register_attack,
)
from fedgrpo.attacks.faults import Faults, faults_of
from fedgrpo.attacks.knowledge import Insight, Knowledge
from fedgrpo.attacks.poison import Poison, poison_of, poisons

__all__ = [
    "ATTACKS",
    "EVERYBODY",
    "Attack",
    "Faults",
    "Insight",
    "Knowledge",
    "Poison",
    "apply_attack",
    "blind",
    "check_attack",
    "everybody",
    "faults_of",
    "own",
    "poison_of",
    "poisons",
    "register_attack",
]
