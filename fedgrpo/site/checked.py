"""That a site's own people have held its prompts against its own figures, before any server asks.

What is wrong with prompts is told here, in front of them, and never in an answer. A stamp in the
node's folder says which files were looked at; prompts that have changed since are unchecked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedgrpo.ground.errors import DataError
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.limits import Policy
from fedgrpo.site.node_folder import node_folder, owned_folder
from fedgrpo.site.refusals import Refusal, refused

STAMP = "checked.json"
"""Name of the stamp in the node's folder."""


@dataclass(frozen=True)
class Checked:
    """What was looked at, and what was found."""

    files: str
    """Tells the prompts' files from others, see :func:`files_stamp`."""
    units: Mapping[str, int]
    """How many units there are, by what was looked at: see :func:`looked_at`."""

    def and_also(self, before: Checked | None) -> Checked:
        """Keep what was found in the same files in other ways."""
        if before is None or before.files != self.files:
            return self
        return replace(self, units={**before.units, **self.units})


def looked_at(settings: Settings) -> str:
    """Say which rows were looked at, and how: everything of a run that decides what becomes of a
    file's rows.

    Adversary: a server that names another split, or another model, than those that the site's
    people have looked at.
    """
    data, model = settings.data, settings.model
    return json.dumps([data.split, data.unit, model.name, model.revision])


def files_stamp(prompts: str) -> str:
    """Tell prompts from others without opening them: SHA-256 (hex) of names, sizes and times.
    Raises DataError if they are no file or folder of this machine.
    """
    path = Path(prompts).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        seen = [(str(file), *_look(file)) for file in files]
    except OSError as error:
        raise DataError(
            f"prompts {prompts!r} cannot be looked at ({type(error).__name__})",
            cure="name a file or a folder on this machine",
        ) from None
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def _look(file: Path) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def keep_checked(folder: Path, found: Checked) -> None:
    """Leave a stamp in the node's folder; raises OSError or RunError if it cannot be kept."""
    whole = found.and_also(read_checked(folder))
    replace_file(owned_folder(folder) / STAMP, json.dumps(asdict(whole)).encode(), mode=0o600)


def read_checked(folder: Path) -> Checked | None:
    """Read the stamp; None if there is none that can be read."""
    try:
        return Checked(**json.loads((folder / STAMP).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def check_prompts(node_config: Mapping[str, Scalar], settings: Settings, policy: Policy) -> None:
    """Refuse a deployed node's prompts unless they were checked as they are.

    A node that names no prompts has its own way to them, which its own code must check.

    Raises
    ------
    PolicyError
        With the code ``unchecked``.
    """
    if "prompts" not in node_config:
        return
    try:
        files = files_stamp(str(node_config["prompts"]))
    except DataError as error:
        raise refused(Refusal.UNCHECKED, error.problem) from None
    folder = node_folder(node_config, settings)
    found = read_checked(folder) if folder else None
    if problem := _problem(found, files, settings, policy):
        raise refused(
            Refusal.UNCHECKED,
            problem,
            cure=f"run 'fedgrpo policy check POLICY SCENARIO --prompts {node_config['prompts']}'"
            + (f" --state {folder}" if "state" in node_config else ""),
        )


def _problem(found: Checked | None, files: str, settings: Settings, policy: Policy) -> str:
    """What is wrong with a stamp; empty if nothing is."""
    if found is None:
        return "the prompts were never checked"
    if found.files != files:
        return "the prompts have changed since they were checked"
    if (seen := looked_at(settings)) not in found.units:
        return f"the prompts were not checked with this split, unit column and model: {seen}"
    if found.units[seen] > policy.prompts_declared > 0:
        return f"there are more units than prompts_declared = {policy.prompts_declared}"
    return ""


def proposed(units: int) -> int:
    """Round a count of units up to two digits: 1873 becomes 1900.

    The exact count would be told by refusals, which cost a server nothing.
    """
    step = int(10 ** max(0, len(str(units)) - 2))
    return -(-units // step) * step
