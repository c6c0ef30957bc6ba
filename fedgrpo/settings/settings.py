"""The whole tree, sound together, and the forms that it comes in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from fedgrpo.ground.parts import join_names
from fedgrpo.settings.checks import check_together
from fedgrpo.settings.reading import explain, read_toml
from fedgrpo.settings.sections.grpo import MAY_BE_UNSET
from fedgrpo.settings.sections.tree import Tree
from fedgrpo.settings.starts import with_start

Scalar = bool | int | float | str
"""What Flower's run configuration carries."""


class Settings(Tree):
    """The whole tree."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_together(self)
        # Frozen for everybody else.
        vars(self)["grpo"] = self.grpo.following(shipped=self.model.name == "tiny")
        return self

    @classmethod
    def from_mapping(cls, tree: Mapping[str, Any]) -> Settings:
        """Validate a nested mapping.

        Raises
        ------
        SettingsError
            Names each bad key with its value and the cure.
        """
        try:
            return cls.model_validate(dict(tree))
        except ValidationError as error:
            raise explain(error, [*cls().to_run_config(), *cls.model_fields]) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Settings:
        """Read a scenario file; raises SettingsError if the file is missing, is not TOML, or a key
        or value is not valid.
        """
        return cls.from_mapping(with_start(read_toml(Path(path))))

    @classmethod
    def from_run_config(cls, flat: Mapping[str, Scalar]) -> Settings:
        """Read Flower's flat run configuration, ``{"section.name": scalar}``."""
        tree: dict[str, Any] = {}
        for key, value in flat.items():
            section, _, name = key.rpartition(".")
            (tree.setdefault(section, {}) if section else tree)[name] = value
        return cls.from_mapping(tree)

    def to_run_config(self) -> dict[str, Scalar]:
        """Flatten for Flower: the inverse of :meth:`from_run_config`.

        What a preset or the model can fill and nobody has set is an empty text, so that one named
        later, by ``flwr run -c``, can still fill it.
        """
        unset = {f"grpo.{name}" for name in MAY_BE_UNSET - self.grpo.model_fields_set}
        flat: dict[str, Scalar] = {}
        for key, value in self.model_dump().items():
            for name, item in value.items() if isinstance(value, dict) else [("", value)]:
                flat[f"{key}.{name}" if name else key] = (
                    join_names(item) if isinstance(item, tuple) else item
                )
        return flat | dict.fromkeys(unset, "")

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides what a run computes; resuming asks for the same
        one.
        """
        tree = self.model_dump(exclude={"run"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
