"""The server's state between rounds, written before each round so that the same command goes on
after a kill.

One safetensors file, replaced whole. It is written when a round starts and counts that round as
charged already: if the round is interrupted, it is repeated and charged again, for holders may have
released into it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedgrpo.errors import RunError
from fedgrpo.federation.optimisers import OptimiserState
from fedgrpo.federation.versions import VERSION
from fedgrpo.files import replace_file
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Settings

FILE = "checkpoint.safetensors"
"""Name of the checkpoint in the run directory."""

_BASIS = "basis."
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
        Rounds started so far, repeated ones counted each time: what epsilon is computed from.
    dropped:
        Nodes lost so far, summed over rounds.
    skipped:
        Rounds so far that left the adapter as it was.
    steps:
        Steps of the server's optimiser.
    """

    round: int = 1
    clipping_norm: float = 1.0
    charged: int = 0
    dropped: int = 0
    skipped: int = 0
    steps: int = 0


@dataclass(frozen=True)
class ServerState:
    """Everything that the server carries from round to round."""

    adapter: AdapterState
    progress: Progress = field(default_factory=Progress)
    optimiser: OptimiserState = field(default_factory=OptimiserState)

    def charged(self) -> ServerState:
        """Return the state with one more round started."""
        return replace(self, progress=replace(self.progress, charged=self.progress.charged + 1))

    def refunded(self) -> ServerState:
        """Return the state with one round less that was charged: nothing of it came out."""
        return replace(self, progress=replace(self.progress, charged=self.progress.charged - 1))

    def finished(self, round: int, dropped: int, *, skipped: bool) -> ServerState:
        """Return the state after a round, with the nodes that it lost."""
        before = self.progress
        progress = replace(
            before,
            round=round + 1,
            dropped=before.dropped + dropped,
            skipped=before.skipped + skipped,
        )
        return replace(self, progress=progress)


def save_checkpoint(path: Path, state: ServerState, fingerprint: str) -> None:
    """Write the state so that a crash at any instant leaves the old file or the new one.

    Parameters
    ----------
    path:
        File to write or replace.
    state:
        What to write.
    fingerprint:
        Of the settings, see :meth:`fedgrpo.settings.Settings.fingerprint`.
    """
    tensors: dict[str, NDArray[Any]] = {
        "adapter": state.adapter.vector,
        "optimiser.first": state.optimiser.first,
        "optimiser.second": state.optimiser.second,
    }
    tensors |= {_BASIS + name: array for name, array in state.adapter.basis.items()}
    facts = {
        **asdict(state.progress),
        "layout": state.adapter.layout,
        "fingerprint": fingerprint,
        "version": VERSION,
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    replace_file(path, save(contiguous, metadata={"fedgrpo": json.dumps(facts)}))


def load_checkpoint(path: Path, fingerprint: str) -> ServerState | None:
    """Read a checkpoint, or return None if there is none.

    Raises
    ------
    RunError
        If the file is of other settings or another version, or is damaged.
    """
    if not path.exists():
        return None
    facts, tensors = _read(path)
    for name, ours in (("fingerprint", fingerprint), ("version", VERSION)):
        if (theirs := facts.pop(name, "")) != ours:
            raise RunError(
                f"checkpoint {path} was made with {_OTHER[name]} "
                f"({str(theirs)[:12]}, now {ours[:12]})",
                cure=f"resume with those, or {_ANEW}",
            )
    layout = facts.pop("layout")
    progress = Progress(**facts)
    basis = {
        name.removeprefix(_BASIS): array
        for name, array in tensors.items()
        if name.startswith(_BASIS)
    }
    return ServerState(
        AdapterState(tensors["adapter"], basis, layout),
        progress,
        OptimiserState(progress.steps, tensors["optimiser.first"], tensors["optimiser.second"]),
    )


_OTHER = {"fingerprint": "other settings", "version": "another version of fedgrpo"}


def resume(path: Path | None, settings: Settings, adapter: AdapterState) -> ServerState:
    """Take up a run's checkpoint, or begin with an adapter.

    Parameters
    ----------
    path:
        Where the checkpoint is, if the run keeps one.
    settings:
        The run's.
    adapter:
        To begin with, and to compare with the checkpoint's.

    Raises
    ------
    RunError
        If the checkpoint is of other settings, another version or another base model.
    """
    stored = load_checkpoint(path, settings.fingerprint()) if path else None
    if stored is None:
        return ServerState(adapter, Progress(clipping_norm=settings.privacy.clipping_norm))
    if stored.adapter.layout != adapter.layout:
        raise RunError(
            f"checkpoint {path} holds an adapter of another base model",
            cure=f"restore that model, or {_ANEW}",
        )
    return stored


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["fedgrpo"])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise RunError(
            f"checkpoint {path} is damaged or not a checkpoint",
            cure="remove it to start this run from its first round",
        ) from None
