"""How the learning rate rises and falls over a run."""

from __future__ import annotations

import math

from fedgrpo.ground.errors import SettingsError
from fedgrpo.settings import GRPOSettings


def rate_share(grpo: GRPOSettings, step: int, total: int) -> float:
    """Share of ``grpo.learning_rate`` that a step has, from 0 to 1.

    The schedules of transformers' ``get_scheduler`` behind the same names, but that the first step
    of a warm-up has a share, too: a round may have no other, and has been paid for.

    Parameters
    ----------
    step:
        Number of the step, from 0.
    total:
        Steps of the run; 0 if nobody said.

    Raises
    ------
    SettingsError
        If the rate falls, and nobody said until when.
    """
    if step < grpo.warmup_steps:
        return (step + 1) / (grpo.warmup_steps + 1)
    if grpo.lr_scheduler_type == "constant":
        return 1.0
    if not total:
        raise SettingsError(
            f"grpo.lr_scheduler_type = {grpo.lr_scheduler_type!r} needs to know how many steps "
            "there will be, and a single step says nothing of it",
            cure="call train(steps), or set grpo.lr_scheduler_type = 'constant'",
        )
    done = min(1.0, (step - grpo.warmup_steps) / max(1, total - grpo.warmup_steps))
    linear = grpo.lr_scheduler_type == "linear"
    return 1 - done if linear else 0.5 * (1 + math.cos(math.pi * done))
