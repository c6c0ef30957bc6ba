"""How often a site looks for what comes next."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

LINGER_S = 30.0
"""After a message in which the next one of its round may come."""
MARK_S = 10.0
"""Between two marks of the same."""


@dataclass
class Pace:
    """Seconds between two looks: few while a round goes on, more while nothing runs.

    A look costs who is asked some milliseconds of computing: fifty nodes that look five times a
    second would take two of a server's cores.
    """

    quiet_s: float
    busy_s: float
    _until: float = field(default=0.0, init=False)

    def came(self) -> None:
        """Something came just now."""
        self._until = time.monotonic() + LINGER_S

    @property
    def wait_s(self) -> float:
        """Until the next look."""
        return self.busy_s if time.monotonic() < self._until else self.quiet_s


@dataclass
class Mark:
    """A file whose time says when something was last so. One that cannot be written is left.

    Attributes
    ----------
    file:
        None marks nothing.
    """

    file: Path | None
    _next: float = field(default=0.0, init=False)

    def now(self) -> None:
        """It is so now."""
        if self.file is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + MARK_S
        with contextlib.suppress(OSError):
            self.file.touch(mode=0o600)
