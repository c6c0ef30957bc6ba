"""Where what a run names lies on a site's machine: names are the federation's, places the site's.

Adversary: a server, which chooses among the names that the site's policy allows. It learns no
place, and chooses none. A model's weights are held against the run's by the hash in the adapter's
layout, before a release is charged for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedgrpo.ground.errors import ModelError
from fedgrpo.ground.files import file_hash
from fedgrpo.ground.parts import PartName, brings_code
from fedgrpo.settings import Scalar, Settings
from fedgrpo.settings.sections.table import read_table

MODELS, REWARDS, DEVICE = "models", "rewards", "device"
"""Keys of a node's own configuration: two tables from names to places, and where to compute."""


def at_home(settings: Settings, node_config: Mapping[str, Scalar]) -> Settings:
    """The settings by which a node loads what a run names. What it is asked for, and what policy
    and account are held against, stays as the run has it.

    Parameters
    ----------
    settings:
        Of the run.
    node_config:
        The node's own; one without places changes nothing.
    """
    model, changed = settings.model, dict[str, Any]()
    if folder := model_place(settings, node_config):
        changed |= {"name": folder, "revision": ""}
    if DEVICE in node_config:
        changed["device"] = str(node_config[DEVICE])
    functions = own_names(settings.reward.functions, node_config)
    if not changed and functions == settings.reward.functions:
        return settings
    reward = settings.reward.model_copy(update={"functions": functions})
    return settings.model_copy(update={"model": model.model_copy(update=changed), "reward": reward})


def model_place(settings: Settings, node_config: Mapping[str, Scalar]) -> str:
    """Folder or file of the run's model on this machine; empty where the node names none."""
    table, model = _table(node_config, MODELS), settings.model
    return table.get(f"{model.name}@{model.revision}", table.get(model.name, ""))


def check_model_places(node_config: Mapping[str, Scalar]) -> None:
    """Raise ModelError if a place of a model is none."""
    for name, place in _table(node_config, MODELS).items():
        if not Path(place).exists():
            raise ModelError(
                f"models in site.toml: {place}, for {name!r}, does not exist",
                cure="correct the path, or copy the model there",
            )


def own_names(names: Iterable[str], node_config: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Names of rewards, each with the file of this machine if the node's configuration has one."""
    table = _table(node_config, REWARDS)
    return tuple(_own(name, table) for name in names)


def reward_key(name: str) -> str:
    """The name of a reward of a module or file without its options; empty for built-in ones."""
    if not brings_code(name):
        return ""
    read = PartName.read(name, "reward.functions")
    return f"{read.place}:{read.name}"


def reward_file(name: str, node_config: Mapping[str, Scalar]) -> Path | None:
    """File whose code would run here as a reward of this name; None for built-in ones and
    modules.
    """
    place = reward_key(own_names((name,), node_config)[0]).rpartition(":")[0]
    return Path(place).expanduser() if place.endswith(".py") else None


def reward_hash(file: Path) -> str:
    """SHA-256 (hex) of a reward's file; empty if it cannot be read."""
    try:
        return file_hash(file)
    except OSError:
        return ""


def _own(name: str, table: Mapping[str, str]) -> str:
    if not (key := reward_key(name)) or key not in table:
        return name
    return f"{table[key]}:{name[len(key.rpartition(':')[0]) + 1 :]}"


def _table(node_config: Mapping[str, Scalar], key: str) -> dict[str, str]:
    return {name: str(place) for name, place in read_table(str(node_config.get(key, ""))).items()}
