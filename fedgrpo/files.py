"""Files that a crash never leaves half written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_DRAFT = ".tmp"


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Replace a file whole, making its folder if need be.

    The content is on disk before the name points at it, or a crash could leave an empty file; and
    the name is on disk when this returns. Drafts carry the process id: one writer a process and
    file.

    Parameters
    ----------
    path, content:
        What to write, and where.
    private:
        Whether nobody but the owner may read it, from the first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        _write(draft, content, private=private)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def make_private_file(path: Path, content: bytes) -> bool:
    """Make a file that only its owner reads, whole, unless there is one.

    Of several processes that try, the first one's stays.

    Returns
    -------
    bool
        Whether this call made it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        _write(draft, content, private=True)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def append_line(path: Path, line: bytes, *, after: int) -> None:
    """Write a line behind the first ``after`` bytes of a file, which is on disk when this returns.

    What a crash left of an earlier attempt, behind those bytes, is cut off first.

    Parameters
    ----------
    path:
        Made if it does not exist.
    line:
        With its line break.
    after:
        Bytes of the file that stay.
    """
    with path.open("ab") as file:
        file.truncate(after)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def sweep_drafts(folder: Path) -> None:
    """Remove the drafts that killed writers left in a folder that nobody else writes to now."""
    for draft in folder.glob(f".*{_DRAFT}"):
        with contextlib.suppress(OSError):
            draft.unlink()


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_DRAFT}")


def owner_only(path: str, flags: int) -> int:
    """Open a file that nobody else may read: an ``opener`` for :func:`open`."""
    return os.open(path, flags, 0o600)


def _write(path: Path, content: bytes, *, private: bool) -> None:
    with open(path, "wb", opener=owner_only if private else None) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
