"""Everything that can be known to be wrong before the first process starts."""

from __future__ import annotations

import os
from pathlib import Path

from fedgrpo.errors import DataError, SettingsError
from fedgrpo.settings import Settings


def preflight(settings: Settings) -> tuple[str, ...]:
    """Refuse a simulation that cannot work on this machine, and warn of one that cannot learn.

    Cheap checks come first. Reward files and prompt files are loaded for good, since nothing less
    tells whether they can be; models and datasets on the Hub are left to the run.

    Returns
    -------
    tuple[str, ...]
        Warnings.

    Raises
    ------
    FedGRPOError
        Of the kind that fits, with the setting, its value and the cure.
    """
    _check_cohort(settings)
    _check_machine(settings)
    _check_names(settings)
    _check_rewards(settings)
    _check_prompts(settings)
    _check_model(settings)
    _check_budget(settings)
    return tuple(filter(None, [_noise_warning(settings)]))


def _check_cohort(settings: Settings) -> None:
    holders, needed = settings.simulation.holders, settings.federation.min_holders
    if holders < needed:
        raise SettingsError(
            f"simulation.holders = {holders} is less than federation.min_holders = {needed}",
            cure=f"set simulation.holders >= {needed}, or lower federation.min_holders",
        )


def _check_machine(settings: Settings) -> None:
    wanted, present = settings.simulation.cpus_per_holder, os.cpu_count() or 1
    if wanted > present:
        raise SettingsError(
            f"simulation.cpus_per_holder = {wanted}, but this machine has {present} cores",
            cure=f"set simulation.cpus_per_holder <= {present}",
        )
    if settings.simulation.gpus_per_holder > 0:
        import torch

        if not torch.cuda.is_available():
            raise SettingsError(
                f"simulation.gpus_per_holder = {settings.simulation.gpus_per_holder}, but "
                "no GPU is visible here",
                cure="set simulation.gpus_per_holder = 0.0, or install a torch build for this GPU",
            )


def _check_names(settings: Settings) -> None:
    from fedgrpo.data.tasks import TASKS
    from fedgrpo.federation.optimisers import OPTIMISERS
    from fedgrpo.grpo.advantages import ADVANTAGES
    from fedgrpo.grpo.credit import CREDITS
    from fedgrpo.grpo.guidance import GUIDES
    from fedgrpo.grpo.isolation import require_isolation
    from fedgrpo.grpo.losses import LOSSES
    from fedgrpo.robust.rules import RULES
    from fedgrpo.simulation.attacks import ATTACKS

    ATTACKS.check(settings.simulation.attack)
    ADVANTAGES.check(settings.grpo.advantage)
    LOSSES.check(settings.grpo.loss)
    CREDITS.check(settings.grpo.credit)
    GUIDES.check(settings.grpo.guidance)
    if settings.privacy.unit == "prompt":
        require_isolation(settings.grpo)
    RULES.check(settings.robust.rule)
    OPTIMISERS.check(settings.server.optimiser)
    if "tasks" in {settings.data.source, settings.evaluation.source or settings.data.source}:
        if not settings.data.tasks:
            raise SettingsError("data.tasks is empty", cure=f"choose from {', '.join(TASKS)}")
        for task in settings.data.tasks:
            TASKS.check(task)


def _check_rewards(settings: Settings) -> None:
    from fedgrpo.rewards.loading import load_reward

    for name in settings.reward.functions:
        load_reward(name)


def _check_prompts(settings: Settings) -> None:
    from fedgrpo.data.prompts import load_prompts

    for source in (settings.data.source, settings.evaluation.source):
        if source not in {"", "tasks"} and not source.startswith("hf:"):
            load_prompts(source, settings.data.split)
    if settings.data.source != "tasks":
        return
    made, promised = settings.data.prompts_per_holder, settings.data.min_prompts
    if made < promised:
        raise DataError(
            f"data.prompts_per_holder = {made} is less than data.min_prompts = {promised}: "
            "every holder would refuse",
            cure="raise the first or lower the second",
        )


def _check_model(settings: Settings) -> None:
    from fedgrpo.model.base import model_source

    model_source(settings.model.name)


def _check_budget(settings: Settings) -> None:
    from fedgrpo.privacy.accounting import check_budget

    check_budget(settings)


def _noise_warning(settings: Settings) -> str:
    """Whether a client-level run drowns in its noise, which grows with the square root of d."""
    from fedgrpo.model.base import model_source

    if settings.privacy.unit != "client" or not Path(model_source(settings.model.name)).is_dir():
        return ""
    from fedgrpo.model.dimension import adapter_dimension
    from fedgrpo.privacy.budget import Cohort

    dimension = adapter_dimension(settings.model, settings.adapter)
    return Cohort.of(settings).warning(settings.privacy.noise_multiplier, dimension)
