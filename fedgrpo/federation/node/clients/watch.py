"""What a client is told of time and of crashes, and what it tells its own site of mishaps.

A process that dies in the middle of a round (killed for memory, say) is started anew with the same
order. The batch that was being computed is on the node's disk then: its units are suspects, which
are computed one by one in the same shape, behind all others and in the time that those leave. A
unit at which the process dies again, alone, is dead: it contributes nothing, and the round goes on
without it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedgrpo.settings import Scalar, Settings
from fedgrpo.site.node_folder import node_folder

if TYPE_CHECKING:
    from fedgrpo.federation.state.node_store import NodeStore

NOTE = "watch"
"""Name of the note on the node's disk."""


@dataclass(frozen=True)
class _Open:
    """What is under way, by the names of units."""

    plan: str
    batch: tuple[str, ...]
    suspects: tuple[str, ...]
    dead: tuple[str, ...]


class Watch:
    """Time that is left for one order, and the batches that it has begun.

    Parameters
    ----------
    store:
        Where batches are noted before they are computed. None notes nothing: a process that dies
        is then not remembered.
    plan:
        SHA-256 (hex) of everything that decides the release: what an earlier process of the same
        plan noted counts, nothing else.
    deadline:
        On the clock of :func:`time.monotonic`; infinity where there is none.
    durable:
        False for a simulated client: its notes outlive its process, and not the machine, and cost
        a hundredth.

    Attributes
    ----------
    suspects, dead:
        Names of units in whose batch an earlier process died, and of those at which one died alone.
    mishaps:
        How often each cause kept a prompt from contributing. For the site's own people: it never
        leaves the node.
    """

    def __init__(
        self,
        store: NodeStore | None = None,
        plan: str = "",
        deadline: float = math.inf,
        *,
        durable: bool = True,
    ) -> None:
        self._store, self.plan, self.deadline = store, plan, deadline
        self._durable = durable
        self.mishaps: Counter[str] = Counter()
        self.suspects: frozenset[str] = frozenset()
        self.dead: frozenset[str] = frozenset()
        self._take_up()

    @classmethod
    def at(
        cls, node_config: Mapping[str, Scalar], settings: Settings, plan: str, deadline: float
    ) -> Watch:
        """Of a deployed node, in another process than the one that has its store open."""
        from fedgrpo.federation.state.node_store import FolderShelf, NodeStore

        folder = node_folder(node_config, settings)
        return cls(NodeStore(FolderShelf(folder)) if folder else None, plan, deadline)

    def left(self) -> float:
        """Seconds until the deadline; negative behind it."""
        return self.deadline - time.monotonic()

    def begin(self, names: Sequence[str]) -> None:
        """Note that a batch of these units is about to be computed; noted on return."""
        self._write(sorted(set(names)))

    def end(self) -> None:
        """Note that it is done; noted on return."""
        self._write([])

    def _take_up(self) -> None:
        """Draw conclusions from what an earlier process of this plan left open."""
        note = self._store.read_note(_Open, NOTE) if self._store else None
        if note is None or note.plan != self.plan:
            return
        batch = frozenset(note.batch)
        self.suspects, self.dead = frozenset(note.suspects), frozenset(note.dead)
        if len(batch) == 1 and batch <= self.suspects:
            self.dead |= batch
        self.suspects = (self.suspects | batch) - self.dead
        if batch:
            self._write([])

    def _write(self, batch: Sequence[str]) -> None:
        if self._store:
            suspects, dead = tuple(sorted(self.suspects)), tuple(sorted(self.dead))
            note = _Open(self.plan, tuple(batch), suspects, dead)
            self._store.write_note(NOTE, note, durable=self._durable)
