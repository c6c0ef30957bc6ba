"""Which directory a run writes to: a new one, or that of an unfinished run with these settings."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.ground.errors import RunError
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.run_files import LOCK, NODES, SECRET, SNAPSHOT, SUMMARY, alone
from fedgrpo.settings import Settings
from fedgrpo.settings.snapshot import read_snapshot, snapshot_text

_OF_FEDERATIONS = {"privacy", "secure", "robust", "server", "federation", "simulation"}
_OF_THE_MACHINE = {
    "reward.cpu_s",
    "reward.timeout_s",
    "grpo.tokens_per_batch",
    "grpo.memory_gb",
    "data.max_failing",
}
LEAST_FREE = 10**8
"""Bytes of room without which no run begins: rows, checkpoints and an adapter."""


@dataclass(frozen=True)
class RunDirectory:
    """A directory for one run.

    Attributes
    ----------
    path:
        Absolute. Made by :meth:`claim`.
    resumes:
        Whether an unfinished run of the same command and settings lies there.
    command:
        What runs there: ``simulate`` or ``train``.
    """

    path: Path
    resumes: bool
    command: str = "simulate"

    @contextmanager
    def claim(self, settings: Settings) -> Iterator[None]:
        """Make the directory, note the settings in it, and hold its lock.

        Raises
        ------
        RunError
            If another process holds the lock.
        """
        with alone(self.path, LOCK, cure="wait for it, or start another run with --fresh"):
            replace_file(
                self.path / SNAPSHOT, snapshot_text(self.command, self.path, settings).encode()
            )
            yield


def choose(
    name: str,
    settings: Settings,
    *,
    run_dir: Path | None,
    fresh: bool,
    base: Path,
    command: str = "simulate",
) -> RunDirectory:
    """Decide where to write: a new directory, or one whose unfinished run these settings continue.

    ``run_dir`` comes before ``run.directory``; both are relative to ``base``. Without either the
    candidates are ``runs/NAME``, ``runs/NAME-2`` and so on; only the last one that exists can be
    continued. Nothing is ever deleted or written over.

    Raises
    ------
    RunError
        If the directory holds a finished run, an unfinished one of another command or other
        settings, or something else; or if it cannot be written, or has no room.
    """
    wanted = run_dir or settings.run.directory
    _check_place((base / Path(wanted or "runs").expanduser()).resolve())
    if wanted:
        path = (base / Path(wanted).expanduser()).resolve()
        if fresh and _is_used(path):
            raise RunError(
                f"run directory {path} is not empty", cure="name another --run-dir, or drop --fresh"
            )
        if _is_finished(path):
            raise RunError(
                f"run directory {path} holds a finished run", cure="name another --run-dir"
            )
        return _continue_or_begin(path, command, settings, "name another --run-dir")

    last, following = _candidates((base / "runs" / name).resolve())
    if last is None or fresh or _is_finished(last):
        return RunDirectory(following, resumes=False, command=command)
    return _continue_or_begin(last, command, settings, f"begin {following.name} with --fresh")


def _continue_or_begin(path: Path, command: str, settings: Settings, other: str) -> RunDirectory:
    if not _is_used(path):
        return RunDirectory(path, resumes=False, command=command)
    try:
        began, kept = read_snapshot(path / SNAPSHOT)
    except (OSError, ValueError, TypeError):
        raise RunError(
            f"{path} is not empty and holds no run that this version of fedgrpo can read",
            cure=f"{other}, or clear it",
        ) from None
    if began != command:
        raise RunError(
            f"{path} holds an unfinished run of fedgrpo {began}",
            cure=f"{other}, or finish it with fedgrpo {began}",
        )
    if told := _differences(kept, settings, command):
        raise RunError(
            f"{path} holds an unfinished run with other settings: {told}",
            cure=f"{other}, or use the old settings to finish it",
        )
    return RunDirectory(path, resumes=True, command=command)


def _is_finished(path: Path) -> bool:
    return (path / SUMMARY).exists()


def _is_used(path: Path) -> bool:
    """Tell whether anything of a run is there.

    A lock may be left by a refused command, a draft by a killed one; secrets may be prepared.
    """
    if not path.is_dir():
        return path.exists()
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    return bool(names - {SECRET, NODES})


def _candidates(first: Path) -> tuple[Path | None, Path]:
    """Find the last of ``first``, ``first-2``, ... that exists, and the name that follows it."""
    last, following, number = None, first, 1
    while following.exists():
        number += 1
        last, following = following, first.with_name(f"{first.name}-{number}")
    return last, following


def _differences(kept: Settings, wanted: Settings, command: str) -> str:
    """What decides the run and is not the same, as it counts: whoever set it."""
    before, now = _effective(kept), _effective(wanted)
    if command == "train":
        now = {key: value for key, value in now.items() if _decides_training(key)}
    elif kept.fingerprint() == wanted.fingerprint():
        return ""
    keys = [key for key in now if now[key] != before.get(key) and not key.startswith("run.")]
    shown = "; ".join(f"{key} = {before.get(key)!r} there, {now[key]!r} here" for key in keys[:3])
    return shown + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def _decides_training(key: str) -> bool:
    """Whether a setting decides training without a federation: not how long a reward may take or
    how much memory a step, of which errors on the way say that they can be changed.
    """
    section = key.partition(".")[0]
    return key == "privacy.metrics" or (
        section not in _OF_FEDERATIONS and key not in _OF_THE_MACHINE
    )


def _effective(settings: Settings) -> dict[str, object]:
    """Every setting as it counts, a preset's filled in."""
    sections = settings.model_dump()
    return {
        f"{name}.{key}".removesuffix("."): value
        for name, section in sections.items()
        for key, value in (section if isinstance(section, dict) else {"": section}).items()
    }


def _check_place(path: Path) -> None:
    """Refuse a place that cannot be written to, before anything is loaded.

    Raises
    ------
    RunError
        Also if there is next to no room.
    """
    places = (path, *path.parents) if path.is_dir() else path.parents
    there = next(each for each in places if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        raise RunError(
            f"run directory {path} cannot be written ({error.strerror or type(error).__name__})",
            cure="name another --run-dir",
        ) from None
    if free < LEAST_FREE:
        raise RunError(
            f"run directory {path} has {free // 10**6} MB of room left",
            cure=f"make room ({LEAST_FREE // 10**6} MB at least), or name another --run-dir",
        )
