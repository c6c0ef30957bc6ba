"""What a holder is told about time and about crashes, and what it tells its own site."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

from fedgrpo.federation.node_store import NodeStore, Note

_NOTE = "batch"


class Watch:
    """Watches one release being computed.

    Parameters
    ----------
    store:
        Where a batch is noted before it is computed; None notes nothing.
    plan:
        Hash of the release's plan.
    deadline:
        On the clock of :func:`time.monotonic`; infinity where there is none.

    Attributes
    ----------
    mishaps:
        What went wrong, by cause, for the site's own people.
    suspects:
        Names of the units in the batch during which an earlier process of this plan died.
    dead:
        Names of units that were alone when it did.
    """

    def __init__(
        self, store: NodeStore | None = None, plan: str = "", deadline: float = math.inf
    ) -> None:
        self.deadline = deadline
        self.mishaps: Counter[str] = Counter()
        self._store, self._plan = store, plan
        noted, dead = self._read()
        self.dead = dead | (noted if len(noted) == 1 else frozenset())
        self.suspects = noted - self.dead

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def begin(self, names: Sequence[str]) -> None:
        """Note, durably, which units are computed next."""
        self._write(names)

    def end(self) -> None:
        """Note that they are done."""
        self._write(())

    def _read(self) -> tuple[frozenset[str], frozenset[str]]:
        note = self._store.read_note(_NOTE) if self._store else None
        if note is None or note.facts["plan"] != self._plan:
            return frozenset(), frozenset()
        return frozenset(note.facts["names"]), frozenset(note.facts["dead"])

    def _write(self, names: Sequence[str]) -> None:
        if self._store:
            facts = {"plan": self._plan, "names": list(names), "dead": sorted(self.dead)}
            self._store.write_note(_NOTE, Note(facts, {}))
