"""Advantages: how good a completion is beside others. One pure function a rule, chosen by name.

A rule is group-local, comparing a completion with the others of its prompt only, or batch-wide.
Prompt-level privacy takes group-local rules alone: see :mod:`fedgrpo.grpo.learning.isolation`.
"""

# The families register their rules when they are imported.
from fedgrpo.grpo.learning.advantages import (
    batch,  # noqa: F401
    group,  # noqa: F401
    objectives,  # noqa: F401
)
from fedgrpo.grpo.learning.advantages.base import (
    ADVANTAGES,
    STD_FLOOR,
    AdvantageRule,
    Outcomes,
    compute_advantages,
    declare_advantage,
    register_advantage,
)

__all__ = [
    "ADVANTAGES",
    "STD_FLOOR",
    "AdvantageRule",
    "Outcomes",
    "compute_advantages",
    "declare_advantage",
    "register_advantage",
]
