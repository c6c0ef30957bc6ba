"""GRPO on one machine: rollout, advantages, losses, update. Knows nothing of any federation."""

from fedgrpo.grpo.checkpoint import load_trainer, save_trainer
from fedgrpo.grpo.held_out import HeldOut
from fedgrpo.grpo.learning.advantages import (
    ADVANTAGES,
    Outcomes,
    compute_advantages,
    declare_advantage,
    register_advantage,
)
from fedgrpo.grpo.learning.health import TrainingWarning
from fedgrpo.grpo.learning.isolation import require_isolation
from fedgrpo.grpo.learning.losses import (
    LOSSES,
    BatchTotals,
    Surrogate,
    TokenBatch,
    compute_loss,
    declare_loss,
    register_loss,
)
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.rewards.verifiable.overlong import soft_overlong
from fedgrpo.settings import PRESETS, Preset, register_preset

__all__ = [
    "ADVANTAGES",
    "LOSSES",
    "PRESETS",
    "BatchTotals",
    "GRPOTrainer",
    "HeldOut",
    "Outcomes",
    "Preset",
    "StepMetrics",
    "Surrogate",
    "TokenBatch",
    "TrainingWarning",
    "compute_advantages",
    "compute_loss",
    "declare_advantage",
    "declare_loss",
    "load_trainer",
    "register_advantage",
    "register_loss",
    "register_preset",
    "require_isolation",
    "save_trainer",
    "soft_overlong",
]
