"""The one base model of a process, and the cores that it computes on."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.machine import computing_threads
from fedgrpo.model.lora import Adapter
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.site import is_simulated

THREADS = "threads"
"""Key of a node's own configuration: how many cores it trains on."""

_LOADED: dict[Settings, Adapter] = {}
"""The one that was used last, by the settings that decide what is computed."""


def computed(settings: Settings) -> Settings:
    """Settings without the section that decides nothing of what is computed."""
    return settings.model_copy(update={"run": type(settings.run)()})


def use_cores(settings: Settings, node_config: Mapping[str, Scalar]) -> None:
    """Compute on as many cores as this node may have.

    A simulated node shares the machine with others, so the settings give it a number. A deployed
    one has the number of its own configuration, or else what OMP_NUM_THREADS says, or all that it
    may use. Raises SettingsError if the configured number is none.
    """
    if is_simulated(node_config):
        torch.set_num_threads(settings.simulation.cpus_per_client)
        return
    threads = node_config.get(THREADS, computing_threads())
    if type(threads) is not int or threads < 1:
        raise SettingsError(
            f"{THREADS} = {threads!r} in this node's configuration is no number of cores",
            cure=f"write {THREADS} = 4 in site.toml, or leave it out, for all cores",
        )
    torch.set_num_threads(threads)


def resident(settings: Settings, *, any_weights: bool = False) -> Adapter:
    """One base model a process: simulated clients take turns on it, each loading the round's
    adapter first. Raises ModelError if it cannot be loaded.

    Parameters
    ----------
    any_weights:
        Whether it may be loaded from weights in a format that can hold code, as the site's policy
        says. What is loaded already is handed out whatever this says.
    """
    wanted = computed(settings)
    if wanted not in _LOADED:
        _LOADED.clear()
        _LOADED[wanted] = Adapter.from_settings(settings, any_weights=any_weights)
    return _LOADED[wanted]
