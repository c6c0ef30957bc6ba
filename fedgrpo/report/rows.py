"""Files of a line a record, which grow while others read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.ground.files import lines, owner_only, replace_file


@dataclass(frozen=True)
class Rows:
    """One such file.

    Attributes
    ----------
    path:
        Made by the first row.
    private:
        Whether nobody but its owner may read it.
    """

    path: Path
    private: bool = False

    def append(self, rows: Sequence[str]) -> None:
        """Add rows, in place of what a crash left after the last line break."""
        with open(self.path, "ab+", opener=owner_only if self.private else None) as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
            file.write("".join(f"{row}\n" for row in rows).encode())

    def sync(self) -> None:
        """Bring every row to disk."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """Forget every other row."""
        if self.path.exists():
            content = "".join(f"{line}\n" for line in lines(self.path) if wanted(line)).encode()
            replace_file(self.path, content, mode=0o600 if self.private else 0o666)
