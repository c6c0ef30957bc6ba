"""``fedgrpo backup`` and ``restore``: a federation in one file, which is whole or refused.

Adversary: whoever gets at the file has the federation's keys and each run's secret, so it is its
owner's alone; and what is no backup of fedgrpo, or not all of one, leaves no trace on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

from fedgrpo.federation.deployment.operator.federation_file import FILE, FederationFile
from fedgrpo.federation.deployment.operator.folder import StateFolder
from fedgrpo.federation.deployment.operator.founding import write_service
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.federation.wire.versions import VERSION
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import owner_only, replace_file, sync_folder
from fedgrpo.ground.run_files import OPENED, OPENED_UNKNOWN, SECRET, STATUS, SUMMARY

CONTENTS = "fedgrpo-backup.json"
"""The last member of the file: what all others must be."""
FORMAT = 1
TRIES = 5
"""Copies that are made while something changes under them."""
FOLDER, RUNS = "folder", "runs"
"""Members of the server's folder, and of the folder of run directories."""
_OF_A_PROCESS = ("flwr", "fedgrpo-app", "inner.pem", "inner.key", "run-config.toml")
"""What a server makes anew at its start."""
_LOGS = f"{FOLDER}/{StateFolder(Path()).log.parent}/"
_PIECE = 1 << 20
_UNREAD = (
    *(zipfile.BadZipFile, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(RecursionError, FileExistsError, NotADirectoryError),
)
"""What comes of a file that somebody else has made, or of two of its members at one place."""


@dataclass(frozen=True)
class Restored:
    """What a backup held.

    Attributes
    ----------
    folder:
        Of the server.
    unfinished:
        Names of runs that have not ended.
    version:
        Of the fedgrpo that made it.
    made:
        When, in UTC.
    """

    folder: Path
    unfinished: tuple[str, ...]
    version: str
    made: str


def back_up(folder: Path, file: Path) -> int:
    """Copy a server's folder and its run directories into one file of mode 0600.

    The server may run: a copy under which something changed is made again.

    Parameters
    ----------
    folder:
        Of the server.
    file:
        To make; its name appears when all is on disk.

    Returns
    -------
    int
        Number of files in it.

    Raises
    ------
    SettingsError, RunError
        If the folder is no federation's, there is such a file, or the copy would not be of one
        moment.
    """
    federation, file = FederationFile.read(folder), file.expanduser().absolute()
    _refuse_inside(file, folder.absolute(), Path(federation.runs))
    for _ in range(TRIES):
        named = _files(folder.absolute(), Path(federation.runs))
        before = _stamps(named)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".backup-") as draft:
            whole = _pack(named, draft)
            if whole and _stamps(_files(folder.absolute(), Path(federation.runs))) == before:
                _publish(draft, file)
                return len(named)
    raise RunError(
        f"{folder} changes faster than it can be copied, so a copy would not be of one moment",
        cure="end the server (a run goes on when it is started again), and back up then",
    )


def restore(file: Path, folder: Path) -> Restored:
    """Make a server's folder of a backup.

    Parameters
    ----------
    file:
        That :func:`back_up` has made.
    folder:
        Must not exist.

    Raises
    ------
    RunError
        If it exists, or the file is no backup, or not all of one. Nothing is left on the disk then.
    """
    folder = folder.expanduser().absolute()
    if folder.exists():
        raise RunError(
            f"{folder} exists, and nothing in it was touched",
            cure="name a new folder, or move that one away",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".restore-") as name:
        said = _unpack(file, Path(name))
        staged = Path(name) / FOLDER
        runs = _place_of_runs(staged, folder)
        (Path(name) / RUNS).mkdir(exist_ok=True)
        unfinished = tuple(_mark_unfinished(Path(name) / RUNS))
        _point_at(staged, runs)
        made = FederationFile.read(staged)
        key = Path(made.key)
        key = key.relative_to(staged) if key.is_relative_to(staged) else key
        write_service(staged, made.host, key, at=folder)
        inside = runs.is_relative_to(folder)
        target = staged / runs.relative_to(folder) if inside else runs
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(name) / RUNS, target)
        staged.rename(folder)
        sync_folder(folder.parent)
    return Restored(folder, unfinished, str(said["fedgrpo"]), str(said["made"]))


# Making one --------------------------------------------------------------------------------------


def _refuse_inside(file: Path, *folders: Path) -> None:
    if file.exists():
        raise RunError(f"{file} exists, and was not touched", cure="name a new file")
    if not file.parent.is_dir():
        raise RunError(f"{file.parent} is no folder", cure="make it, or name another one")
    if any(file.is_relative_to(folder) for folder in folders):
        raise RunError(
            f"{file} would lie in what it is a copy of",
            cure="name a file elsewhere, at best on another disk",
        )


def _files(folder: Path, runs: Path) -> Mapping[str, Path]:
    """Files by the names of their members. What only a running process needs stays out."""
    named = {f"{FOLDER}/{path.relative_to(folder)}": path for path in _below(folder, runs)}
    named |= {f"{RUNS}/{path.relative_to(runs)}": path for path in _below(runs)}
    return dict(sorted(named.items()))


def _below(folder: Path, *but: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path in but or path.name in _OF_A_PROCESS or path.name.startswith("superlink.db"):
            continue
        if path.is_dir():
            yield from _below(path, *but)
        elif path.is_file() and not path.name.endswith((".lock", ".tmp")):
            yield path


def _stamps(named: Mapping[str, Path]) -> Mapping[str, tuple[int, int, int] | None]:
    """Tell files from what they were. What is written at any moment, and only tells what goes on,
    is left out: where a run stands, and the log.
    """
    return {
        name: _stamp(path)
        for name, path in named.items()
        if path.name != STATUS and not name.startswith(_LOGS)
    }


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _pack(named: Mapping[str, Path], draft: IO[bytes]) -> bool:
    """Write the file; False if something went away meanwhile."""
    hashes = {}
    with zipfile.ZipFile(draft, "w", strict_timestamps=False) as packed:
        for name, path in named.items():
            try:
                with path.open("rb") as file, packed.open(name, "w", force_zip64=True) as member:
                    hashes[name] = _copy(file, member)
            except FileNotFoundError:
                return False
        made = datetime.now(UTC).isoformat(timespec="seconds")
        said = {"format": FORMAT, "fedgrpo": VERSION, "made": made, "files": hashes}
        packed.writestr(CONTENTS, json.dumps(said))
    return True


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy, and return the SHA-256 (hex) of what was."""
    digest = hashlib.sha256()
    while piece := source.read(_PIECE):
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()


def _publish(draft: IO[bytes], file: Path) -> None:
    """Give what is whole and on disk its name, unless there is such a file by now."""
    draft.flush()
    os.fsync(draft.fileno())
    try:
        os.link(draft.name, file)
    except FileExistsError:
        raise RunError(f"{file} exists, and was not touched", cure="name a new file") from None
    sync_folder(file.parent)


# Reading one -------------------------------------------------------------------------------------


def _unpack(file: Path, into: Path) -> Mapping[str, object]:
    """Take a backup apart, and hold every file against what the backup says of it."""
    try:
        with zipfile.ZipFile(file) as packed:
            _check_sizes(packed, file.stat().st_size)
            said = json.loads(packed.read(CONTENTS))
            if said["format"] != FORMAT:
                raise _foreign(file, f"of format {said['format']}, and this fedgrpo reads {FORMAT}")
            hashes = dict(said["files"])
            if sorted(packed.namelist()) != sorted([*hashes, CONTENTS]):
                raise _foreign(file, "not what it says that it holds")
            for name, expected in hashes.items():
                if _extract(packed, name, into) != expected:
                    raise _foreign(file, f"damaged: {name} was changed")
    except FileNotFoundError:
        raise RunError(f"there is no {file}", cure="name the backup's file") from None
    except _UNREAD:
        raise _foreign(file, "no backup of fedgrpo, or not all of one") from None
    if f"{FOLDER}/{FILE}" not in hashes:
        raise _foreign(file, f"no backup of a server: it has no {FILE}")
    return dict(said)


def _check_sizes(packed: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError if it would take more room than itself: none of its files is compressed."""
    members = packed.infolist()
    plain = all(m.compress_type == zipfile.ZIP_STORED and not m.flag_bits & 1 for m in members)
    if not plain or sum(member.file_size for member in members) > size:
        raise ValueError


def _foreign(file: Path, what: str) -> RunError:
    return RunError(f"{file} is {what}", cure="take another backup; nothing was restored")


def _extract(packed: zipfile.ZipFile, name: str, into: Path) -> str:
    """Write a member for its owner alone, and return its SHA-256 (hex)."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or parts[0] not in (FOLDER, RUNS) or ".." in parts:
        raise ValueError
    path = into.joinpath(*parts)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with packed.open(name) as member, open(path, "xb", opener=owner_only) as target:
        digest = _copy(member, target)
        target.flush()
        os.fsync(target.fileno())
    return digest


def _place_of_runs(staged: Path, folder: Path) -> Path:
    """Where run directories go: as federation.toml says, which must be free."""
    named = Path(FederationFile.read(staged).runs)
    runs = folder / named.relative_to(staged) if named.is_relative_to(staged) else named
    if runs.exists():
        raise RunError(
            f"{runs}, where federation.toml has its runs, exists, and nothing in it was touched",
            cure="move it away; nothing was restored",
        )
    return runs


def _mark_unfinished(runs: Path) -> Iterator[str]:
    """Have runs that go on open nothing of a round of which the backup cannot know."""
    for directory in sorted(path for path in runs.iterdir() if path.is_dir()):
        if (directory / SECRET).exists() and not (directory / SUMMARY).exists():
            replace_file(directory / OPENED, OPENED_UNKNOWN, mode=0o600)
            yield directory.name


def _point_at(staged: Path, runs: Path) -> None:
    """Have the run that is wanted lie where its directory is now."""
    if wish := Wish.read(staged):
        directory = str(runs / Path(wish.directory).name)
        config = wish.config | {"run.directory": directory}
        wish.model_copy(update={"directory": directory, "config": config}).write(staged)
