"""The one base model of a process."""

from __future__ import annotations

import torch

from fedgrpo.model.lora import Adapter
from fedgrpo.settings import Settings

_LOADED: dict[Settings, Adapter] = {}
"""The one that was used last, by the settings that decide what is computed."""


def computed(settings: Settings) -> Settings:
    """Settings without the section that decides nothing of what is computed."""
    return settings.model_copy(update={"run": type(settings.run)()})


def resident(settings: Settings, *, any_weights: bool = False) -> Adapter:
    """One base model a process: simulated clients take turns on it, each loading the round's
    adapter first.

    Parameters
    ----------
    settings:
        The run's.
    any_weights:
        Whether it may be loaded from weights in a format that can hold code, as the site's policy
        says. What is loaded already is handed out whatever this says.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    wanted = computed(settings)
    if wanted not in _LOADED:
        _LOADED.clear()
        torch.set_num_threads(settings.simulation.cpus_per_client)
        _LOADED[wanted] = Adapter.from_settings(settings, any_weights=any_weights)
    return _LOADED[wanted]
