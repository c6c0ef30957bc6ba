"""Reward functions in TRL's calling convention: built in, found by name, and mixed."""

from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.formats import format_match, think_answer_format
from fedgrpo.rewards.grounding import grounding
from fedgrpo.rewards.judged import (
    JudgedGrounding,
    Principle,
    ReasoningQuality,
    SelfCertainty,
    constitution,
)
from fedgrpo.rewards.length import CosineLength, soft_overlong
from fedgrpo.rewards.loading import load_reward
from fedgrpo.rewards.preference import (
    PreferencePair,
    TrainedRewardModel,
    preference_accuracy,
    preference_loss,
    train_reward_model,
)
from fedgrpo.rewards.registry import REWARDS, RewardFunction, register_reward
from fedgrpo.rewards.repetition import repetition, repetition_penalty
from fedgrpo.rewards.reward_model import RewardModel
from fedgrpo.rewards.self_consistency import SelfConsistency, TextSelfConsistency
from fedgrpo.rewards.symbolic import symbolic_match
from fedgrpo.rewards.token_judge import TokenJudge
from fedgrpo.rewards.verifiers import completion_text, exact_match, last_number, numeric_match

__all__ = [
    "REWARDS",
    "CosineLength",
    "JudgedGrounding",
    "PreferencePair",
    "Principle",
    "ReasoningQuality",
    "RewardFunction",
    "RewardMixture",
    "RewardModel",
    "RewardResult",
    "SelfCertainty",
    "SelfConsistency",
    "TextSelfConsistency",
    "TokenJudge",
    "TrainedRewardModel",
    "completion_text",
    "constitution",
    "exact_match",
    "format_match",
    "grounding",
    "last_number",
    "load_reward",
    "numeric_match",
    "preference_accuracy",
    "preference_loss",
    "register_reward",
    "repetition",
    "repetition_penalty",
    "soft_overlong",
    "symbolic_match",
    "think_answer_format",
    "train_reward_model",
]
