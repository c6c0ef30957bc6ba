"""What ``fedgrpo export`` does, one form after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.ground.run_files import ADAPTER, BEST_ADAPTER
from fedgrpo.model.export.card import stated_layout
from fedgrpo.model.export.gguf_file import check_known, check_place, save_gguf
from fedgrpo.model.export.hub import publish
from fedgrpo.model.export.merging import check_empty, save_merged
from fedgrpo.model.lora import Adapter
from fedgrpo.report.reader import read_run
from fedgrpo.settings import Settings


@dataclass(frozen=True)
class Chosen:
    """A run's adapter, and the settings that name its base."""

    adapter: Path
    settings: Settings

    @classmethod
    def of(cls, run_dir: Path, *, best: bool) -> Self:
        """Find them; raises RunError if the run has none yet."""
        run, name = read_run(run_dir), BEST_ADAPTER if best else ADAPTER
        if run.settings is None:
            raise RunError(
                f"{run_dir} has no settings that this version can read",
                cure="export it with the version of fedgrpo that made it",
            )
        if not (run.path / name / "adapter_config.json").is_file():
            raise RunError(
                f"{run_dir} has no {name}",
                cure="leave --best out" if best else "finish the run: the same command resumes it",
            )
        return cls(run.path / name, run.settings)


def hand_on(chosen: Chosen, *, merged: Path | None, gguf: Path | None, hub: str) -> Iterator[str]:
    """Write every form that is asked for, and say where it is.

    Raises
    ------
    FedGRPOError
        Before anything is written where that can be known.
    """
    if not (merged or gguf or hub):
        raise SettingsError(
            "no form is asked for", cure="add --merged DIR, --gguf FILE or --hub NAME"
        )
    if merged:
        check_empty(merged)
    if gguf:
        check_place(gguf)
    if merged:
        _merge(chosen, merged, as_gguf=gguf is not None)
        yield f"Merged model: {merged}"
    if gguf:
        with tempfile.TemporaryDirectory(dir=gguf.absolute().parent) as spare:
            folder = merged or Path(spare) / "merged"
            if not merged:
                _merge(chosen, folder, as_gguf=True)
            save_gguf(folder, gguf)
        yield f"GGUF: {gguf}"
    if hub:
        yield f"Hub: {publish(chosen.adapter, hub)}"


def _merge(chosen: Chosen, folder: Path, *, as_gguf: bool) -> None:
    """Merge into a base that is the one that the adapter was trained on; of a model that cannot be
    written as GGUF, if that is asked for, nothing is written.
    """
    if not (stated := stated_layout(chosen.adapter)):
        raise RunError(
            f"{chosen.adapter} has no card that says which base it is for",
            cure="put README.md back as the run wrote it, or finish the run with this version",
        )
    fresh = Adapter.from_settings(chosen.settings)
    if fresh.layout != stated:
        raise RunError(
            f"model.name = {chosen.settings.model.name!r} is another model than this adapter was "
            "trained on",
            cure="put the base model back where it was",
        )
    if as_gguf:
        check_known(fresh.model.config.to_dict())
    save_merged(fresh.model, fresh.base.tokenizer, chosen.adapter, folder)
