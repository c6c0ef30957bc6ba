"""An adapter that a run left: which one, of which settings, and the model that it belongs on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.ground.files import file_hash
from fedgrpo.ground.run_files import ADAPTER, BEST_ADAPTER, SHARED_ADAPTER
from fedgrpo.model.export.card import stated_layout
from fedgrpo.model.export.merging import merged_with
from fedgrpo.model.lora import Adapter
from fedgrpo.report.reader import read_run
from fedgrpo.settings import Settings

WEIGHTS = "adapter_model.safetensors"
"""PEFT's file of an adapter's values."""


@dataclass(frozen=True)
class Chosen:
    """A run's adapter, and the settings that name its base.

    Attributes
    ----------
    adapter:
        Its folder.
    settings:
        Of the run.
    below:
        Folder of the shared adapter that lies under a personal one. None: it is on the base itself.
    """

    adapter: Path
    settings: Settings
    below: Path | None = None

    @classmethod
    def of(cls, run_dir: Path, *, best: bool) -> Self:
        """Find them; raises RunError if the run has none yet."""
        run, name = read_run(run_dir), BEST_ADAPTER if best else ADAPTER
        if run.settings is None:
            raise RunError(
                f"{run_dir} has no settings that this version can read",
                cure="use the version of fedgrpo that made it",
            )
        if not (run.path / name / "adapter_config.json").is_file():
            raise RunError(
                f"{run_dir} has no {name}",
                cure="leave --best out" if best else "finish the run: the same command resumes it",
            )
        below = run.path / SHARED_ADAPTER
        return cls(run.path / name, run.settings, below if below.is_dir() else None)

    @property
    def weights(self) -> Path:
        """The file with its values."""
        return self.adapter / WEIGHTS

    def fresh(self) -> Adapter:
        """A new adapter on the model that the trained one belongs on.

        Raises
        ------
        RunError
            If that is another model than it was trained on.
        """
        if not (stated := stated_layout(self.adapter)):
            raise RunError(
                f"{self.adapter} has no card that says which base it is for",
                cure="put README.md back as the run wrote it, or finish the run with this version",
            )
        settings, below = self.settings, self.below
        fresh = on_top(Chosen(below, settings)) if below else Adapter.from_settings(settings)
        if fresh.layout != stated:
            raise RunError(
                f"model.name = {settings.model.name!r} is another model than this adapter was "
                "trained on",
                cure="put the base model back where it was",
            )
        return fresh


def on_top(shared: Chosen) -> Adapter:
    """A new adapter over a base that has this one in its weights for good.

    Its layout is made of both, so that it fits no run of the shared one: no node can take it for a
    round's adapter, nor a server for a node's.

    Raises
    ------
    SettingsError
        If the base is quantised: there are no weights to add to.
    """
    if shared.settings.model.quantise:
        raise SettingsError(
            f"model.quantise = {shared.settings.model.quantise!r}: nothing can lie on an adapter "
            "that cannot be added to the weights",
            cure="add --set model.quantise=",
        )
    fresh = shared.fresh()
    merged = merged_with(fresh.model, shared.adapter).requires_grad_(False).eval()
    values = file_hash(shared.weights)
    both = hashlib.sha256(f"{fresh.base.fingerprint} {values}".encode()).hexdigest()
    # No name: saved, the adapter on top must not name the base alone as what it belongs on.
    unnamed = fresh.base.settings.model_copy(update={"name": ""})
    base = replace(fresh.base, model=merged, fingerprint=both, settings=unnamed)
    return Adapter(base, shared.settings.adapter, shared.settings.seed)
