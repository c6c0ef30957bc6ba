"""That a site's own people have held its prompts against its own figures, before any server asks.

What is wrong with prompts is told here, in front of them, and never in an answer. A stamp in the
node's folder says which files were looked at; prompts that have changed since contribute nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import DataSettings, Scalar, Settings
from fedgrpo.settings.sections.table import read_table, to_text
from fedgrpo.site.limits import Policy
from fedgrpo.site.node_folder import STATE, node_folder, owned_folder
from fedgrpo.site.refusals import Refusal, refused

_DECIDING = ("config", "columns", "system_prompt", "chat_template", "chat_template_kwargs", "today")
_USUAL = {name: getattr(DataSettings(), name) for name in _DECIDING}
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


def looked_at(settings: Settings, columns: str = "") -> str:
    """Say which rows were looked at, and how: everything of a run that decides what becomes of a
    file's rows, under the columns' names of the site's own (``columns`` of its configuration).

    Adversary: a server that names another split, or another model, than those that the site's
    people have looked at.
    """
    data, model = settings.data.with_columns(columns), settings.model
    known = [data.split, data.unit, model.name, model.revision]
    # Only where they say something, so that what was checked before they were there stays checked.
    new = {name: getattr(data, name) for name in _DECIDING if getattr(data, name) != _USUAL[name]}
    return json.dumps([*known, new] if new else known)


def with_columns(settings: Settings, columns: str) -> Settings:
    """The settings by which a site reads its prompts, whose columns it calls otherwise.

    Raises
    ------
    SettingsError
        If ``columns`` is no table.
    """
    try:
        data = settings.data.with_columns(columns)
    except ValueError as error:
        raise SettingsError(f"columns = {columns!r} {error}", cure="write a=b,c=d") from None
    return settings.model_copy(update={"data": data})


def files_stamp(prompts: str) -> str:
    """Tell prompts from others without opening them: SHA-256 (hex) of names, sizes and times.
    Raises DataError if they are no file or folder of this machine.
    """
    path = Path(prompts).expanduser().resolve()  # The same by whatever way it is named.
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


def check_prompts(node_config: Mapping[str, Scalar], settings: Settings) -> None:
    """Refuse a run whose way of looking at a deployed node's prompts its people have not tried.

    Adversary: a server. This depends on its settings, and on what was done at the site before; what
    has become of the prompts since is for :func:`check_unchanged`, after the charge. A node that
    names no prompts has its own way to them, which its own code must check.

    Raises
    ------
    PolicyError
        With the code ``unchecked``.
    """
    if "prompts" not in node_config:
        return
    folder = node_folder(node_config, settings)
    found = read_checked(folder) if folder else None
    if found is None:
        raise refused(
            Refusal.UNCHECKED, "the prompts were never checked", cure=how_to_check(node_config)
        )
    if (seen := looked_at(settings, str(node_config.get("columns", "")))) not in found.units:
        raise refused(
            Refusal.UNCHECKED,
            f"the prompts were not checked with this split, unit column and model: {seen}",
            cure=how_to_check(node_config),
        )


def check_unchanged(node_config: Mapping[str, Scalar], settings: Settings, policy: Policy) -> None:
    """Raise DataError if a deployed node's prompts are not as they were checked, or too many.

    Before a node starts, and after the charge: a refusal would tell of the prompts.
    """
    if "prompts" not in node_config:
        return
    folder = node_folder(node_config, settings)
    found = read_checked(folder) if folder else None
    files = files_stamp(str(node_config["prompts"]))
    if found is None or found.files != files:
        what = "were never checked" if found is None else "have changed since they were checked"
        raise DataError(f"the prompts {what}", cure=how_to_check(node_config))
    if max(found.units.values(), default=0) > policy.prompts_declared > 0:
        raise DataError(
            f"there are more units than prompts_declared = {policy.prompts_declared}",
            cure="raise it in the policy, and check the prompts again",
        )


def how_to_check(node_config: Mapping[str, Scalar]) -> str:
    """The command for a site's people."""
    state = f" --state {node_config[STATE]}" if STATE in node_config else ""
    pairs = read_table(str(to_text(node_config.get("columns", "")))).items()
    columns = f" --columns {','.join(f'{k}={v}' for k, v in pairs)}" if pairs else ""
    prompts = node_config["prompts"]
    return f"run 'fedgrpo policy check POLICY SCENARIO --prompts {prompts}{columns}{state}'"


def proposed(units: int) -> int:
    """Round a count of units up to two digits: 1873 becomes 1900.

    The exact count would be told by refusals, which cost a server nothing.
    """
    step = int(10 ** max(0, len(str(units)) - 2))
    return -(-units // step) * step
