"""Reward functions in TRL's calling convention: built in, found by name, and mixed."""

from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.loading import load_reward
from fedgrpo.rewards.registry import REWARDS, RewardFunction, register_reward
from fedgrpo.rewards.verifiers import completion_text, exact_match, last_number, numeric_match

__all__ = [
    "REWARDS",
    "RewardFunction",
    "RewardMixture",
    "RewardResult",
    "completion_text",
    "exact_match",
    "last_number",
    "load_reward",
    "numeric_match",
    "register_reward",
]
