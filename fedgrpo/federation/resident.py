"""The one base model of a process."""

from __future__ import annotations

from functools import lru_cache

import torch

from fedgrpo.model.base import load_base
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import Settings


def computed(settings: Settings) -> Settings:
    """Settings without the section that decides nothing of what is computed."""
    return settings.model_copy(update={"run": type(settings.run)()})


def resident(settings: Settings) -> Adapter:
    """One base model a process: simulated holders take turns on it, each loading the round's
    adapter first.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    return _resident(computed(settings))


@lru_cache(maxsize=1)
def _resident(settings: Settings) -> Adapter:
    torch.set_num_threads(settings.simulation.cpus_per_holder)
    return Adapter(load_base(settings.model), settings.adapter, settings.seed)
