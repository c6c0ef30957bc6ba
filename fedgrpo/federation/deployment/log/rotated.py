"""A log file that many processes write, and that is put aside when it is long."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

MOST_BYTES = 4 << 20
"""After which a file is put aside."""
FILES = 10
"""As many are kept, the one that is written among them."""


class RotatedFile(logging.Handler):
    """Appends to a file that its owner alone can read, a line at a time.

    Processes that share it append whole lines, and notice by the file's inode that another one has
    put it aside. What fails is not written: a full disk costs a line, and never what the line tells
    of.

    Parameters
    ----------
    path:
        Made, with its folder, when there is something to say.
    most_bytes:
        After which it becomes ``path.1``, that one ``path.2``, and so on.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._path, self._most_bytes = path, most_bytes
        self._file: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        with contextlib.suppress(Exception):
            file = self._opened()
            os.write(file, self.format(record).encode("utf-8", "replace") + b"\n")
            if os.fstat(file).st_size > self._most_bytes:
                self._put_aside(file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        super().close()

    def _opened(self) -> int:
        if self._file is not None and not self._is_at_its_place(self._file):
            os.close(self._file)
            self._file = None
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        return self._file

    def _is_at_its_place(self, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file))
        except FileNotFoundError:
            return False

    def _put_aside(self, file: int) -> None:
        """Move the files one on; if another process is at it, leave it to that one."""
        name = f".{self._path.name}.lock"
        lock = os.open(self._path.with_name(name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_at_its_place(file):
                for number in range(FILES - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(self._numbered(number - 1), self._numbered(number))
        finally:
            os.close(lock)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
