"""GRPO on one machine: rollout, advantages, losses, update. Knows nothing of any federation."""

from fedgrpo.grpo.advantages import compute_advantages, register_advantage
from fedgrpo.grpo.losses import BatchTotals, LossResult, compute_loss, register_loss
from fedgrpo.grpo.trainer import GRPOTrainer, StepMetrics

__all__ = [
    "BatchTotals",
    "GRPOTrainer",
    "LossResult",
    "StepMetrics",
    "compute_advantages",
    "compute_loss",
    "register_advantage",
    "register_loss",
]
