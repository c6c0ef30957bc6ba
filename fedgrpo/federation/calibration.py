"""A clipping norm to begin with, found by a dry run on public prompts.

Nothing private is touched: the prompts are those of the evaluation, which no holder has, and the
adapter is the one that every run starts from. So the result costs no privacy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.ownership import evaluation_prompts
from fedgrpo.errors import PrivacyError
from fedgrpo.federation.holder import LocalHolder
from fedgrpo.grpo.trainer import GRPOTrainer
from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.rewards.composite import RewardMixture
from fedgrpo.settings import Settings

DRY_ROUNDS = 16
"""Local trainings whose update norms are looked at (client unit, and none)."""


def calibrated_norm(settings: Settings) -> float:
    """Return the quantile of norms that ``privacy.quantile`` asks for, on public prompts.

    Prompt unit: L2 norms of the gradients of all public prompts that teach something. Otherwise: of
    the updates of :data:`DRY_ROUNDS` holders' local steps, each from the start of the run. Norms
    tend to shrink as a run goes on, which ``privacy.adaptive`` follows.

    Parameters
    ----------
    settings:
        The run's; ``evaluation.prompts`` says how many public prompts there are.

    Raises
    ------
    PrivacyError
        If no prompt teaches anything, so that there is no norm.
    """
    norms = public_norms(settings)
    if not norms.size:
        raise PrivacyError(
            f"none of {settings.evaluation.prompts} public prompts gives a gradient",
            cure="raise evaluation.prompts or grpo.group_size, or check the reward",
        )
    return float(np.quantile(norms, settings.privacy.quantile))


def public_norms(settings: Settings) -> NDArray[np.float64]:
    """Norms of what one unit contributes, on public prompts: those above 0, float64, shape (m,)."""
    trainer = GRPOTrainer(
        Adapter(load_base(settings.model), settings.adapter, settings.seed),
        RewardMixture.from_settings(settings.reward),
        evaluation_prompts(settings),
        settings=settings.grpo,
    )
    holder, start = LocalHolder(settings, trainer, settings.seed), trainer.adapter.state()
    trainer.start_round(settings.seed)
    if settings.privacy.unit == "prompt":
        experience = trainer.collect(range(len(trainer.collector.rows)), isolated=True)
        return holder.prompt_gradients(experience, settings.privacy.clipping_norm).norms
    norms = []
    for dry in range(DRY_ROUNDS):
        trainer.adapter.load(start)
        trainer.start_round(settings.seed + dry)
        norms.append(float(np.linalg.norm(holder.local_update()[0])))
    return np.array([norm for norm in norms if 0 < norm < np.inf], dtype=np.float64)
