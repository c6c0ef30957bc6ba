"""Settings as a run's directory keeps them, beside the command that runs and the place it has."""

from __future__ import annotations

import json
import os
from itertools import takewhile
from pathlib import Path

from fedgrpo.settings.settings import Settings


def snapshot_text(command: str, run_dir: Path, settings: Settings) -> str:
    """What a run's directory says of its settings: all but ``run``."""
    tree = {"command": command, "place": str(run_dir), **settings.model_dump(exclude={"run"})}
    return json.dumps(tree, indent=2) + "\n"


def read_snapshot(path: Path) -> tuple[str, Settings]:
    """Command and settings of a run. Where the run was moved together with the folder in which it
    lay, paths into that folder are those of today.

    Raises
    ------
    OSError, ValueError, TypeError
        If there are none that this version can read.
    """
    tree = json.loads(path.read_text("utf-8"))
    if not isinstance(tree, dict):
        raise TypeError(f"{path} holds no table")
    here = path.parent.resolve()
    command, place = str(tree.pop("command", "simulate")), Path(str(tree.pop("place", here)))
    return command, _moved(Settings.from_mapping(tree), place, here)


def _moved(settings: Settings, place: Path, here: Path) -> Settings:
    same = takewhile(
        lambda pair: pair[0] == pair[1], zip(place.parts[::-1], here.parts[::-1], strict=False)
    )
    depth = sum(1 for _ in same)
    roots = [each.parts[:-depth] for each in (place, here)]
    if place == here or depth < 2 or min(map(len, roots)) < 2:  # The run alone, or nothing.
        return settings
    before, now = (f"{Path(*parts)}{os.sep}" for parts in roots)
    return Settings.from_run_config(
        {
            key: value.replace(before, now) if isinstance(value, str) else value
            for key, value in settings.to_run_config().items()
        }
    )
