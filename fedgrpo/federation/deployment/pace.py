"""How often a site looks for what comes next."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LINGER_S = 30.0
"""After a message in which the next one of its round may come."""


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
