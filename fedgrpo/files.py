"""Files that a crash never leaves half written."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Replace a file whole, making its folder if need be.

    The content is on disk before the name points at it, or a crash could leave an empty file.
    Drafts carry the process id: one writer a process and file. A ``private`` file can be read by
    its owner alone, from the first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb", opener=owner_only if private else None) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def owner_only(path: str, flags: int) -> int:
    """Open a file that nobody else may read: an ``opener`` for :func:`open`."""
    return os.open(path, flags, 0o600)
