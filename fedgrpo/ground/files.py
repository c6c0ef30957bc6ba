"""Files that a crash never leaves half written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tomllib
from pathlib import Path
from typing import Any

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Variable in which systemd names a folder of copies of secrets for a service."""
_DRAFT = ".tmp"
_CHUNK = 2**16


def replace_file(path: Path, content: bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Replace a file whole, making its folder if need be.

    The content is on disk before the name points at it, or a crash could leave an empty file; and
    the name is on disk when this returns. Drafts carry the process id: one writer a process and
    file.

    Parameters
    ----------
    path, content:
        What to write, and where.
    mode:
        Permissions of the file, less the process's umask.
    durable:
        False outlives this process's death, and not the machine's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        _write(draft, content, mode, durable=durable)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def is_open_to_others(path: Path) -> bool:
    """Whether other users may read or write a secret. What systemd has copied for this process
    alone it guards by the folder, whatever the copy's mode. Raises OSError if there is no file.
    """
    own = os.environ.get(CREDENTIALS, "")
    return bool(path.stat().st_mode & 0o077) and not (own and path.is_relative_to(own))


def own_copy(name: str, path: Path) -> Path:
    """The copy of a secret that systemd has made for this process by a name, or the file itself,
    which a process with such a copy need not see.
    """
    copy = Path(os.environ.get(CREDENTIALS, "")) / name
    return copy if CREDENTIALS in os.environ and copy.exists() else path


def make_file(path: Path, content: bytes, *, mode: int = 0o600) -> bool:
    """Make a file whole, unless there is one: of several processes, the first one's stays.

    Returns
    -------
    bool
        Whether this call made it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        _write(draft, content, mode)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
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


def whole_bytes(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line; the file is read from its end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = file.seek(max(0, end - _CHUNK))
            if (at := file.read(end - start).rfind(b"\n")) >= 0:
                return start + at + 1
            end = start
    return 0


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_drafts(folder: Path) -> None:
    """Remove the drafts that killed writers left in a folder that nobody else writes to now."""
    for draft in folder.glob(f".*{_DRAFT}"):
        with contextlib.suppress(OSError):
            draft.unlink()


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_DRAFT}")


def _write(path: Path, content: bytes, mode: int, *, durable: bool = True) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring to disk which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lines(path: Path) -> list[str]:
    """Read the whole lines of a file: a last one without its newline was torn by a crash, or is
    being written. A file that is not there has none.
    """
    content = path.read_bytes() if path.exists() else b""
    return [line.decode("utf-8", errors="replace") for line in content.split(b"\n")[:-1]]


def toml_of(path: Path) -> dict[str, Any]:
    """Read a TOML file that people write: some editors begin one with a byte order mark.

    Raises
    ------
    OSError, UnicodeDecodeError, tomllib.TOMLDecodeError
        If it is none.
    """
    return tomllib.loads(path.read_bytes().decode("utf-8-sig"))


def owner_only(path: str, flags: int) -> int:
    """Open a file that nobody else may read: an ``opener`` for :func:`open`."""
    return os.open(path, flags, 0o600)
