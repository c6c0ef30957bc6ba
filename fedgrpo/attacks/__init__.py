"""Faults among simulated clients: attackers, and those that drop out. No part of a deployment."""

from fedgrpo.attacks.attacks import (
    ATTACKS,
    Attack,
    apply_attack,
    register_attack,
)
from fedgrpo.attacks.faults import Faults, faults_of
from fedgrpo.attacks.knowledge import Insight, Knowledge

__all__ = [
    "ATTACKS",
    "Attack",
    "Faults",
    "Insight",
    "Knowledge",
    "apply_attack",
    "faults_of",
    "register_attack",
]
