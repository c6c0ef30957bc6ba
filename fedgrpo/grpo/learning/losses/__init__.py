"""Losses: one pure function a method over (batch, tokens) tensors, chosen by name.

A method is a surrogate (what a token's loss is, by its probability ratio and clip) and a divisor.
The divisor is that of the whole optimiser batch, given by the caller, so that splitting a batch
into micro-batches changes nothing; ``bnpo`` alone divides by the micro-batch it is given.
"""

# The families register their methods when they are imported.
from fedgrpo.grpo.learning.losses import (
    clipped,  # noqa: F401
    policy_gradient,  # noqa: F401
    sequence,  # noqa: F401
    shaped,  # noqa: F401
)
from fedgrpo.grpo.learning.losses.aggregation import BatchTotals
from fedgrpo.grpo.learning.losses.base import (
    LOSSES,
    LossMethod,
    LossOptions,
    LossResult,
    Surrogate,
    TokenBatch,
    compute_loss,
    declare_loss,
    register_loss,
)
from fedgrpo.grpo.rollout.divergence import k3

__all__ = [
    "LOSSES",
    "BatchTotals",
    "LossMethod",
    "LossOptions",
    "LossResult",
    "Surrogate",
    "TokenBatch",
    "compute_loss",
    "declare_loss",
    "k3",
    "register_loss",
]
