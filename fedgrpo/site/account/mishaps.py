"""What went wrong at a site, counted by cause for its own people. Nothing of it leaves."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedgrpo.ground.files import owner_only


@dataclass(frozen=True)
class MishapFile:
    """Counts by cause in a file beside the site's account: a line for each round that had any."""

    path: Path
    """Made with mode 0600 when something is counted first."""

    def add(self, counts: Mapping[str, int]) -> None:
        """Count more; raises OSError if the disk fails."""
        if not counts:
            return
        # The line break comes first: it ends a line that a crash may have torn.
        line = b"\n" + json.dumps(dict(counts), sort_keys=True).encode()
        with open(self.path, "ab", opener=owner_only) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Counter[str]:
        """Add up everything that was counted; a line that a crash tore is left out."""
        if not self.path.exists():
            return Counter()
        return sum(map(_counts, self.path.read_bytes().splitlines()), Counter())


def _counts(line: bytes) -> Counter[str]:
    try:
        found = json.loads(line)
    except ValueError:
        return Counter()
    return Counter({str(cause): int(count) for cause, count in found.items()})
