"""``site.toml``: everything that a site's node is started with, in one place."""

from __future__ import annotations

import json
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path

import certifi
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedgrpo.federation.deployment.executor.apps import CLIENT
from fedgrpo.federation.deployment.invitation.invitation import SYSTEM
from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import own_copy, toml_of
from fedgrpo.settings import Scalar
from fedgrpo.settings.reading import faults
from fedgrpo.settings.sections.table import to_text
from fedgrpo.site.places import DEVICE, MODELS, REWARDS, reward_key

KEYS = ("key", "committee_key")
"""What of the file are private keys, also the names of their copies in a service."""


def known_authorities() -> str:
    """File of the public authorities that this machine knows, or of Mozilla's where it has none."""
    found = ssl.get_default_verify_paths().cafile
    return found or certifi.where()


class SiteFile(BaseModel):
    """The file's keys. Paths are relative to its folder.

    Attributes
    ----------
    server:
        ``HOST:PORT`` of the operator's server.
    ca:
        Its root certificate, from the operator, or ``system`` for the authorities that this machine
        knows.
    key:
        This node's private key, ECDSA P-384, of which the operator has the public half.
    prompts:
        This site's; a file or a folder.
    columns:
        What columns are called in them, by the names that the run asks for; what is not named here
        is called as the run's ``data.columns`` says.
    policy:
        This site's; ``policy.toml`` beside the prompts where it is empty.
    state:
        Folder of the node's secret and releases; beside the prompts where it is empty.
    models:
        Folders, or GGUF files, of base models on this machine, by the names that the run's settings
        give them: ``name``, or ``name@revision``.
    rewards:
        Files of rewards on this machine, by the names that the run's settings give them, without
        options: ``{"rewards.py:correct" = "/opt/fedgrpo/rewards.py"}``.
    threads:
        Cores to train on; 0 takes all that this machine, or the container, gives.
    device:
        Where to compute here: ``cpu``, ``cuda``, ``cuda:1``, or ``auto``; as the run's settings say
        where it is empty.
    idle_unload_min:
        Minutes without an order after which model and adapter are unloaded; 0 loads them for each
        order anew.
    committee_key, committee_listen:
        A committee member's keys, and where it listens if not at the settings' address.
    status_bind:
        ``HOST:PORT`` on loopback where the site's own status page and metrics are served, behind a
        password; none where it is empty.
    app:
        The client app that runs, installed here: ``package.module:name``.
    config:
        More of the node's configuration, for an app of the site's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    server: str
    ca: str
    key: str
    prompts: str = ""
    columns: dict[str, str] = {}
    policy: str = ""
    state: str = ""
    models: dict[str, str] = {}
    rewards: dict[str, str] = {}
    threads: int = Field(default=0, ge=0)
    device: str = Field(default="", pattern=r"^(auto|cpu|cuda(:\d{1,3})?)?$")
    idle_unload_min: float = Field(default=15.0, ge=0)
    committee_key: str = ""
    committee_listen: str = ""
    status_bind: str = ""
    app: str = CLIENT
    config: dict[str, Scalar] = {}

    @field_validator("rewards")
    @classmethod
    def _are_files(cls, rewards: dict[str, str]) -> dict[str, str]:
        for name, place in rewards.items():
            if reward_key(name) != name:
                raise ValueError(f"{name!r} is no FILE.py:FUNCTION without options")
            if not place.endswith(".py"):
                raise ValueError(f"{place!r}, for {name!r}, is no .py file")
        return rewards

    @classmethod
    def read(cls, path: Path) -> SiteFile:
        """Read the file and make its paths absolute.

        Raises
        ------
        SettingsError
            If it cannot be read, or has a key or value that cannot be used.
        """
        try:
            found = cls.model_validate(toml_of(path))
        except ValidationError as error:
            raise _unusable(f"site file {path}", error) from None
        except OSError as error:
            problem = f"cannot be read ({type(error).__name__})"
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = f"not valid TOML: {error}"
        else:
            return found._beside(path.expanduser().absolute().parent)
        raise SettingsError(f"site file {path}: {problem}", cure=_EVERY_KEY)

    @classmethod
    def made(cls, keys: Mapping[str, object]) -> SiteFile:
        """Make one of its keys; raises SettingsError if one cannot be used."""
        try:
            return cls.model_validate(keys)
        except ValidationError as error:
            raise _unusable("the site's file", error) from None

    def _beside(self, folder: Path) -> SiteFile:
        named = ("ca", "key", "prompts", "policy", "state", "committee_key")
        paths = {name: str(folder / Path(getattr(self, name)).expanduser()) for name in named}
        if self.ca == SYSTEM:
            paths["ca"] = known_authorities()
        for name in KEYS:
            paths[name] = str(own_copy(name, Path(paths[name])))
        places = {name: _absolute(getattr(self, name), folder) for name in ("models", "rewards")}
        changed = {n: p for n, p in paths.items() if getattr(self, n)}
        return self.model_copy(update=changed | places)

    def written(self) -> str:
        """The file's text: what is not as it comes. Whatever people write behind it is a key."""
        own = self.model_dump(exclude_defaults=True)
        return "".join(f"{key} = {_toml(value)}\n" for key, value in own.items())

    @property
    def own_app(self) -> bool:
        """Whether an app of the site's own runs, which may find its prompts elsewhere."""
        return self.app != CLIENT

    @property
    def node_config(self) -> dict[str, Scalar]:
        """The node's own configuration, under the names that its parts read. It stays here."""
        named: dict[str, Scalar] = {
            "prompts": self.prompts,
            "columns": str(to_text(self.columns)),
            "policy": self.policy,
            "state": self.state,
            MODELS: str(to_text(self.models)),
            REWARDS: str(to_text(self.rewards)),
            "threads": self.threads,
            DEVICE: self.device,
            "committee-key": self.committee_key,
            "committee-listen": self.committee_listen,
        }
        return {**self.config, **{name: value for name, value in named.items() if value}}


_EVERY_KEY = "docs/deployment.md shows one with every key"


def _unusable(what: str, error: ValidationError) -> SettingsError:
    names = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
    its = "hours are what the site allows: write them into its policy.toml"
    return SettingsError(f"{what}: {faults(error)}", cure=its if "hours" in names else _EVERY_KEY)


def _toml(value: object) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(v)}' for key, v in value.items())} }}"


def _absolute(table: dict[str, str], folder: Path) -> dict[str, str]:
    return {name: str(folder / Path(place).expanduser()) for name, place in table.items()}
