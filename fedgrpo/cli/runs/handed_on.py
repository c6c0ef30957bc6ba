"""What ``fedgrpo export`` does, one form after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedgrpo.ground.errors import SettingsError
from fedgrpo.model.export.gguf_file import check_known, check_place, save_gguf
from fedgrpo.model.export.hub import publish
from fedgrpo.model.export.merging import check_empty, save_merged
from fedgrpo.standalone.chosen import Chosen


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
    if hub and chosen.below:
        raise SettingsError(
            "a personal adapter is as private as the prompts that it was trained on",
            cure="leave --hub out, and hand on the shared adapter's run",
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
    fresh = chosen.fresh()
    if as_gguf:
        check_known(fresh.model.config.to_dict())
    save_merged(fresh.model, fresh.base.tokenizer, chosen.adapter, folder)
