"""The server's state between rounds, written before each round so that the same command goes on
after a kill.

One safetensors file, replaced whole. It is written when a round starts, which counts that round as
charged: clients may have released into it, even if it is never finished. An interrupted round is
repeated as the same release and not charged again, see :mod:`fedgrpo.federation.server.journal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedgrpo.federation.server.optimisers import OptimiserState
from fedgrpo.federation.wire.plans import start_radius
from fedgrpo.federation.wire.versions import VERSION, code_hash
from fedgrpo.ground.errors import RunError
from fedgrpo.ground.kept import read_kept, write_kept
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Settings

FILE = "checkpoint.safetensors"
"""Name of the checkpoint in the run directory."""

FORMAT = 3
"""Of the checkpoint. Raised when its meaning changes."""

_ANEW = "set run.directory to an empty directory to start a new run"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes
    ----------
    round:
        The round to run next, from 1.
    clipping_norm:
        L2 norm C of that round.
    charged:
        Rounds started so far, repeated ones once, less the unspent: what epsilon is computed from.
    dropped:
        Nodes lost so far, summed over rounds.
    skipped:
        Rounds so far that left the adapter as it was.
    steps:
        Steps of the server's optimiser.
    in_a_row:
        Rounds skipped since the last one that was not.
    unspent:
        Rounds so far of which nothing can have come out, so that they cost nothing.
    radius:
        Of the next round's ball, where norms are checked; else 0.
    """

    round: int = 1
    clipping_norm: float = 1.0
    charged: int = 0
    dropped: int = 0
    skipped: int = 0
    steps: int = 0
    in_a_row: int = 0
    unspent: int = 0
    radius: float = 0.0


@dataclass(frozen=True)
class ServerState:
    """Everything that the server carries from round to round.

    Attributes
    ----------
    last:
        float64, shape (d,): the last released aggregate, in the update's own units; (0,) before the
        first, and where the rule uses none.
    """

    adapter: AdapterState
    progress: Progress = field(default_factory=Progress)
    optimiser: OptimiserState = field(default_factory=OptimiserState)
    last: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def at_start(cls, adapter: AdapterState, settings: Settings) -> ServerState:
        """Return the state before the first round."""
        norm, radius = settings.privacy.clipping_norm, start_radius(settings)
        return cls(adapter, Progress(clipping_norm=norm, radius=radius))

    def charged(self) -> ServerState:
        """Return the state with the next round started: again, perhaps, which changes nothing."""
        before = self.progress
        return replace(self, progress=replace(before, charged=before.round - before.unspent))

    @property
    def begun(self) -> bool:
        """Whether the next round was started before, and interrupted."""
        return self.progress.charged == self.progress.round - self.progress.unspent

    def patient(self) -> ServerState:
        """Return the state of a run that is taken up: skipped rounds are counted from here."""
        return replace(self, progress=replace(self.progress, in_a_row=0))

    def refunded(self) -> ServerState:
        """Return the state with the round that was started not charged: nothing of it came out."""
        before = self.progress
        progress = replace(before, charged=before.charged - 1, unspent=before.unspent + 1)
        return replace(self, progress=progress)

    def finished(self, round: int, dropped: int, *, skipped: bool) -> ServerState:
        """Return the state after a round, with the nodes that it lost."""
        before = self.progress
        progress = replace(
            before,
            round=round + 1,
            dropped=before.dropped + dropped,
            skipped=before.skipped + skipped,
            in_a_row=before.in_a_row + 1 if skipped else 0,
        )
        return replace(self, progress=progress)


@dataclass(frozen=True)
class Pending:
    """What the last durable step appends to the run's other files, should a kill come between.

    Attributes
    ----------
    row:
        Last line of the metrics; empty for none.
    line:
        Last line of the ledger, with its line break; empty for none.
    entries:
        Entries of the ledger before it.
    """

    row: str = ""
    line: str = ""
    entries: int = 0


@dataclass(frozen=True)
class Origin:
    """What a checkpoint was made with."""

    format: int
    version: str
    code: str
    fingerprint: str
    """Of the settings."""


@dataclass(frozen=True)
class Stored:
    """What a checkpoint holds."""

    state: ServerState
    pending: Pending
    origin: Origin


@dataclass(frozen=True)
class _Marked:
    """What every checkpoint holds, whatever became of the rest."""

    origin: Origin


def save_checkpoint(
    path: Path, state: ServerState, fingerprint: str, pending: Pending | None = None
) -> None:
    """Write the state so that a crash at any instant leaves the old file or the new one.

    Parameters
    ----------
    path:
        File to write or replace.
    state:
        What to write.
    fingerprint:
        Of the settings, see :meth:`fedgrpo.settings.Settings.fingerprint`.
    pending:
        What belongs to other files.
    """
    write_kept(path, Stored(state, pending or Pending(), _origin(fingerprint)))


def load_checkpoint(path: Path, fingerprint: str) -> Stored | None:
    """Read a checkpoint, or return None if there is none.

    Raises
    ------
    RunError
        If the file is of other settings, other code or another version, or is damaged.
    """
    if not path.exists():
        return None
    theirs, mine = read_kept(_Marked, path).origin, _origin(fingerprint)
    for name, what in _OTHER.items():
        made, now = str(getattr(theirs, name)), str(getattr(mine, name))
        if made != now:
            raise RunError(
                f"checkpoint {path} was made with {what} ({made[:12]}, now {now[:12]})",
                cure=f"resume with those, or {_ANEW}",
            )
    return read_kept(Stored, path)


def _origin(fingerprint: str) -> Origin:
    return Origin(FORMAT, VERSION, code_hash(), fingerprint)


_OTHER = {
    "format": "another format of checkpoints",
    "version": "another version of fedgrpo",
    "code": "other code of the same version of fedgrpo",
    "fingerprint": "other settings",
}


def resume(path: Path | None, settings: Settings, adapter: AdapterState) -> Stored | None:
    """Read a run's checkpoint, or return None if the run begins.

    Parameters
    ----------
    path:
        Where the checkpoint is, if the run keeps one.
    settings:
        The run's.
    adapter:
        That the run begins with, to compare with the checkpoint's.

    Raises
    ------
    RunError
        If the checkpoint is of other settings, other code or another base model.
    """
    stored = load_checkpoint(path, settings.fingerprint()) if path else None
    if stored is None:
        return None
    if stored.state.adapter.layout != adapter.layout:
        raise RunError(
            f"checkpoint {path} holds an adapter of another base model",
            cure=f"restore that model, or {_ANEW}",
        )
    return stored
