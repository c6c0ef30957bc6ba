"""What a model process has loaded, told from everything else that it could have."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.ground.parts.loading import Stamp, stamp_of
from fedgrpo.ground.parts.names import PartName, split_names
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.checked import files_stamp
from fedgrpo.site.declared import Declared
from fedgrpo.site.places import at_home


def identity_of(settings: Settings, node_config: Mapping[str, Scalar], declared: Declared) -> str:
    """SHA-256 (hex) of all that a process keeps from one order to the next: settings, prompts, what
    the site declares, and the files of its model and of code that settings name, by file or module.

    A process that holds anything else ends, and the next one loads what there is now. So an order
    finds what it would find in a process of its own.
    """
    home = at_home(settings, node_config)
    known = [
        settings.fingerprint(),
        sorted((key, str(value)) for key, value in node_config.items()),
        asdict(declared),
        [*map(_files, (str(node_config.get("prompts", "")), home.model.name))],
        [*_code(home)],
    ]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _code(settings: Settings) -> Iterator[Stamp]:
    """Stamps of the files whose code the settings name."""
    for value in settings.to_run_config().values():
        for text in split_names(value) if isinstance(value, str) and ":" in value else ():
            with contextlib.suppress(SettingsError):  # Not every text with a colon names a part.
                yield stamp_of(PartName.read(text, "settings").place)


def _files(name: str) -> str:
    """Tells what lies there from what lay there before; empty where there is nothing."""
    if not (name and Path(name).expanduser().exists()):
        return ""
    try:
        return files_stamp(name)
    except DataError:
        return ""
