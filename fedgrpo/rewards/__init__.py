"""Reward functions in TRL's calling convention: built in, found by name, and mixed.

What runs a model is imported when it is first used: the process that judges
(:mod:`fedgrpo.rewards.sandboxed.worker`) needs torch only if a reward function does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fedgrpo.rewards.composite import RewardMixture, RewardResult
from fedgrpo.rewards.judges.judged import (
    JudgedGrounding,
    Principle,
    ReasoningQuality,
    SelfCertainty,
    constitution,
)
from fedgrpo.rewards.loading import load_metric, load_reward
from fedgrpo.rewards.registry import REWARDS, RewardFunction, declare_metric, register_reward
from fedgrpo.rewards.verifiable.formats import format_match, think_answer_format
from fedgrpo.rewards.verifiable.grounding import grounding
from fedgrpo.rewards.verifiable.length import CosineLength, soft_overlong
from fedgrpo.rewards.verifiable.repetition import repetition, repetition_penalty
from fedgrpo.rewards.verifiable.self_consistency import SelfConsistency, TextSelfConsistency
from fedgrpo.rewards.verifiable.symbolic import symbolic_match
from fedgrpo.rewards.verifiable.verifiers import (
    completion_text,
    exact_match,
    last_number,
    numeric_match,
)

if TYPE_CHECKING:
    from fedgrpo.rewards.judges.preference import (
        PreferencePair,
        TrainedRewardModel,
        preference_accuracy,
        preference_loss,
        train_reward_model,
    )
    from fedgrpo.rewards.judges.reward_model import RewardModel
    from fedgrpo.rewards.judges.token_judge import TokenJudge

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
    "declare_metric",
    "exact_match",
    "format_match",
    "grounding",
    "last_number",
    "load_metric",
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

_HOMES = {
    "PreferencePair": "judges.preference",
    "RewardModel": "judges.reward_model",
    "TokenJudge": "judges.token_judge",
    "TrainedRewardModel": "judges.preference",
    "preference_accuracy": "judges.preference",
    "preference_loss": "judges.preference",
    "train_reward_model": "judges.preference",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
