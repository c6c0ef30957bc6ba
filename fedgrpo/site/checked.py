"""That a site's own people have held its prompts against its own figures, before any server asks.

What is wrong with prompts is told here, in front of them, and never in an answer. A stamp in the
node's folder says which files were looked at; prompts that have changed since contribute nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedgrpo.ground.errors import DataError, RewardError, SettingsError
from fedgrpo.ground.files import replace_file
from fedgrpo.settings import DataSettings, Scalar, Settings
from fedgrpo.settings.sections.table import read_table, to_text
from fedgrpo.site.limits import Policy
from fedgrpo.site.node_folder import STATE, node_folder, owned_folder
from fedgrpo.site.places import MODELS, REWARDS, reward_file, reward_hash, reward_key
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
    curated: bool = False
    """Whether the policy asked for a manifest, and it fitted."""

    def and_also(self, before: Checked | None) -> Checked:
        """Keep what was found in the same files in other ways."""
        if before is None or before.files != self.files:
            return self
        either = self.curated or before.curated
        return replace(self, units={**before.units, **self.units}, curated=either)


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
    if policy.curated and not found.curated:
        raise DataError(
            "the prompts were not checked with their manifest, which the policy asks for",
            cure=how_to_check(node_config),
        )
    if max(found.units.values(), default=0) > policy.prompts_declared > 0:
        raise DataError(
            f"there are more units than prompts_declared = {policy.prompts_declared}",
            cure="raise it in the policy, and check the prompts again",
        )


def check_reward_files(node_config: Mapping[str, Scalar], policy: Policy | None) -> None:
    """Raise RewardError if a file of a reward that the node names is not there, or not what its
    policy has the hash of.
    """
    places = read_table(str(node_config.get(REWARDS, "")))
    named = {name: Path(str(place)) for name, place in places.items()}
    hashes = policy.reward_hashes if policy else {}
    beside = {name: reward_file(name, node_config) for name in hashes}
    for name, file in (beside | named).items():
        found, read = reward_hash(file) if file else "", hashes.get(name)
        if name in named and not found:
            raise RewardError(
                f"rewards in site.toml: {file}, for {name!r}, cannot be read",
                cure="correct the path, or put the file there",
            )
        if found and read and found != read:
            raise RewardError(
                f"reward {name!r}: {file} is not as it was read: SHA-256 {found}, and the policy "
                f"has {read}",
                cure="read it again; if your people agree to it, write the new hash into the "
                "policy's reward_hashes",
            )


def broken_files(
    policy: Policy, settings: Settings, node_config: Mapping[str, Scalar]
) -> Iterator[tuple[Refusal, str]]:
    """Say which files of rewards are not those that the site's people have read, for its log.

    Adversary: whoever changed a file since. No prompt decides this.
    """
    for name in settings.reward.functions:
        if not (read := policy.reward_hashes.get(reward_key(name))):
            continue
        file = reward_file(name, node_config)
        found = reward_hash(file) if file else ""
        if found != read:
            what = f"its file {file} has SHA-256 {found}" if found else "it has no file here"
            yield Refusal.REWARD, f"reward function {name!r}: {what}, and {read} is allowed"


def how_to_check(node_config: Mapping[str, Scalar]) -> str:
    """The command for a site's people."""
    if any(key in node_config for key in (MODELS, REWARDS)):
        return "run 'fedgrpo policy check POLICY SCENARIO --site site.toml'"
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
