"""What a node keeps on its own disk from run to run: a secret, and its last release in each run.

A server that was killed asks for the interrupted round again, and must get the same release, bit
for bit: then the round is one release and costs epsilon once, however often it is asked for.

Adversary: the server, which may ask for any round of any run, any number of times, with any plan,
and kill or mislead nodes in between.

* All randomness of a release (which prompts, which completions, the noise) is derived from the
  node's secret and the hash of the *whole plan*: the run's name, round, adapter with its frozen
  basis, clipping norm, noise, all settings and the node's prompts. Equal plans: equal inputs to
  deterministic functions, the same release. Different plans, in whatever they differ: different
  inputs to HKDF under a secret key, so the draws are jointly indistinguishable from independent
  ones, and each is a release of its own in the node's account. A round number that comes with
  another plan thus gains nothing: nothing of the first one's noise is in the second one.
* A release is on disk before it leaves, and what is asked for again comes from there. So a plan
  has one release also where computing twice gives two results, as on a GPU; and where it does
  not (the disk was restored from an older copy), the noise is bound to what it hides, see
  :func:`fedgrpo.privacy.noise.add_noise`.
* With ``robust.momentum`` what leaves is a mean over such releases of the run, each with its own
  noise: post-processing of them, whichever of them it is over.
* Within a run, rounds go forward, and a round has one plan: an earlier round, or the last one with
  another plan (the node's prompts have changed, say), is refused.

* From the question whether a plan was released until its answer has left, one process holds the
  node: two at once would make two releases for one charge.

Masking keys are not derived: masks hide a release only if they are fresh each time.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from flwr.app import Context, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.wire.codec import put, take
from fedgrpo.federation.wire.messages import Tag
from fedgrpo.ground.codec import Key
from fedgrpo.ground.crypto import derive_key, kept_key, new_key
from fedgrpo.ground.errors import RunError, TurnError
from fedgrpo.ground.files import owner_only
from fedgrpo.ground.kept import read_kept, write_kept
from fedgrpo.ledger import commitment
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Settings
from fedgrpo.site.node_folder import STATE, locked, node_folder, owned_folder

T = TypeVar("T")

_BASIS = "basis-"

SECRET = "node.secret"
"""Name of the secret in the node's folder."""
MOST_RUNS = 4
"""Runs whose frozen tensors, and whose mean over rounds, are kept: a server names as many runs as
it likes. One that comes back after others is sent its tensors again, by the code ``basis``, and its
mean begins anew."""


@dataclass(frozen=True)
class Ask:
    """One release that a server asks for.

    Attributes
    ----------
    run:
        Name of the run, the same after a resume.
    round:
        From 1.
    plan:
        SHA-256 (hex) of everything that decides the release.
    """

    run: str
    round: int
    plan: str


@dataclass(frozen=True)
class _Released:
    """A run's last release."""

    round: int
    plan: str
    release: NDArray[np.float64]


@dataclass(frozen=True)
class Adapters:
    """Global adapters of a run as a simulated attacker remembers them: those of a round, of the one
    before, None in the first, and of the first one that it saw.
    """

    round: int
    now: NDArray[np.float32]
    before: NDArray[np.float32] | None
    first: NDArray[np.float32]


@dataclass(frozen=True)
class _Basis:
    """Frozen tensors of a run's adapter, and their hash."""

    hash: str
    tensors: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class _Secret:
    key: Key


@dataclass(frozen=True)
class _First:
    """The first release that a simulated attacker would have made in a run, had it been honest."""

    round: int
    release: NDArray[np.float64]


class Shelf(Protocol):
    """Where notes are kept by name, each replaced whole."""

    def secret(self) -> bytes:
        """The node's secret (32 bytes), made on first use."""

    def read(self, kind: type[T], name: str) -> T | None:
        """Return a note of that class, or None if there is none."""

    def write(self, name: str, note: object, *, durable: bool = True) -> None:
        """Keep a dataclass; unless told otherwise it outlives the machine when this returns."""

    def thin(self, prefix: str, most: int) -> None:
        """Forget notes whose names begin so, but for those that were written last."""

    def locked(self, *, wait: bool) -> AbstractContextManager[None]:
        """Hold the shelf alone."""

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Keep this node's other processes away from a note; waits for its turn."""


@dataclass(frozen=True)
class FolderShelf:
    """Notes of mode 0600 in a folder of mode 0700 on the node's own disk."""

    folder: Path

    def secret(self) -> bytes:
        """See :class:`Shelf`."""
        return kept_key(owned_folder(self.folder) / SECRET)

    def read(self, kind: type[T], name: str) -> T | None:
        """See :class:`Shelf`; raises RunError if the note is damaged."""
        path = self._path(name)
        return read_kept(kind, path) if path.exists() else None

    def write(self, name: str, note: object, *, durable: bool = True) -> None:
        """See :class:`Shelf`."""
        write_kept(self._path(name), note, mode=0o600, durable=durable)

    def thin(self, prefix: str, most: int) -> None:
        """See :class:`Shelf`."""
        notes = sorted(self.folder.glob(f"{prefix}*.safetensors"), key=_written)
        for note in notes[:-most]:
            note.unlink(missing_ok=True)

    def locked(self, *, wait: bool) -> AbstractContextManager[None]:
        """See :class:`Shelf`: between processes, by a lock on a file."""
        return locked(self.folder, wait=wait)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """See :class:`Shelf`."""
        with open(owned_folder(self.folder) / f"{name}.lock", "ab", opener=owner_only) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


@dataclass(frozen=True)
class StateShelf:
    """Notes in Flower's context, for a simulation without a directory: gone with the Flower run."""

    state: RecordDict

    def secret(self) -> bytes:
        """See :class:`Shelf`."""
        if (kept := self.read(_Secret, "secret")) is None:
            self.write("secret", kept := _Secret(new_key()))
        return kept.key

    def read(self, kind: type[T], name: str) -> T | None:
        """See :class:`Shelf`."""
        return take(kind, self.state, self._key(name)) if self._key(name) in self.state else None

    def write(self, name: str, note: object, *, durable: bool = True) -> None:
        """See :class:`Shelf`."""
        put(self.state, note, self._key(name))

    def thin(self, prefix: str, most: int) -> None:
        """See :class:`Shelf`. Nothing is: the whole shelf goes with its run."""

    def locked(self, *, wait: bool) -> AbstractContextManager[None]:
        """See :class:`Shelf`: one process has the state at a time, as Flower hands it out."""
        return nullcontext()

    def alone(self, name: str) -> AbstractContextManager[None]:
        """See :class:`Shelf`. Flower hands a simulated node one message at a time."""
        return nullcontext()

    @staticmethod
    def _key(name: str) -> str:
        return f"fedgrpo.store.{name}"


def _written(note: Path) -> int:
    return note.stat().st_mtime_ns


class NodeStore:
    """A node's secret and its last release in each run. See the module for what that holds against.

    Parameters
    ----------
    shelf:
        Where it is kept.

    Raises
    ------
    RunError
        If the node cannot keep anything.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        try:
            self._secret = shelf.secret()
        except OSError:
            raise RunError(
                "this node cannot keep a secret on its disk",
                cure=f"write {STATE} = 'FOLDER' in site.toml, a folder of its own",
            ) from None

    @classmethod
    def of(cls, context: Context, settings: Settings) -> NodeStore:
        """Open the store of the node that a context belongs to."""
        folder = node_folder(context.node_config, settings)
        return cls(StateShelf(context.state) if folder is None else FolderShelf(folder))

    def key(self, ask: Ask) -> bytes:
        """Return the key (32 bytes) from which all randomness of a release is derived."""
        return derive_key(self._secret, "release", ask.plan)

    def locked(self, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold the node alone, from the question what was released until the answer has left.

        Parameters
        ----------
        wait:
            Whether to wait for who holds it; else raises PolicyError with the code ``busy``.
        """
        return self._shelf.locked(wait=wait)

    @property
    def fingerprint(self) -> str:
        """Tells the node's secret from others: 32 hex digits, for its own account."""
        return self.derive("fingerprint").hex()[:32]

    def tag(self, ask: Ask, release: NDArray[np.float64]) -> Tag:
        """Return what the server may know of a release: whose it is, and a commitment to it.

        The name is a pseudonym for one run: nobody without the node's secret can link it to the
        node's name in another run, or take it.
        """
        salt = derive_key(self._secret, "salt", ask.plan)
        name = derive_key(self._secret, "name", ask.run).hex()[:32]
        return Tag(name, commitment(salt, release.tobytes()))

    def released(self, ask: Ask) -> NDArray[np.float64] | None:
        """Return the release of this very plan, if it was made before.

        Raises
        ------
        TurnError
            If this run is beyond that round, or released into it by another plan.
        """
        kept = self._shelf.read(_Released, f"release-{ask.run}")
        if kept is None or kept.round < ask.round:
            return None
        if (kept.round, kept.plan) != (ask.round, ask.plan):
            raise TurnError(
                f"this node released into round {kept.round} of this run, by another plan "
                f"than it is now asked for in round {ask.round}",
                cure="go on with the next round; keep prompts and settings within a run",
            )
        return kept.release

    def keep(self, ask: Ask, release: NDArray[np.float64]) -> None:
        """Keep a release, in the place of the run's last one, before it leaves."""
        self._shelf.write(f"release-{ask.run}", _Released(ask.round, ask.plan, release))

    def keep_basis(self, run: str, adapter: AdapterState) -> None:
        """Keep a run's frozen tensors, so that its server need not send them again, and forget
        those of the runs before the last few. To be called by who holds the node alone.
        """
        if self.basis(run, adapter.basis_hash) is None:
            self._shelf.write(f"{_BASIS}{run}", _Basis(adapter.basis_hash, adapter.basis))
            self.thin_notes(_BASIS)

    def basis(self, run: str, wanted: str) -> Mapping[str, NDArray[np.generic]] | None:
        """Return a run's frozen tensors; None if none of that hash were kept."""
        kept = self._shelf.read(_Basis, f"{_BASIS}{run}")
        return kept.tensors if kept and kept.hash == wanted else None

    def derive(self, purpose: str, *context: str | int) -> bytes:
        """Return a key (32 bytes) of the node's for one more purpose, always the same."""
        return derive_key(self._secret, purpose, *context)

    def read_note(self, kind: type[T], name: str) -> T | None:
        """Return a note kept under a name, or None if there is none."""
        return self._shelf.read(kind, name)

    def write_note(self, name: str, note: object, *, durable: bool = True) -> None:
        """Keep a dataclass in the place of the one before: see :class:`Shelf`."""
        self._shelf.write(name, note, durable=durable)

    def thin_notes(self, prefix: str) -> None:
        """Forget notes, named by a prefix and a run, of runs before the last few."""
        self._shelf.thin(prefix, MOST_RUNS)

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Keep this node's other processes away from a note, to read and write it as one."""
        return self._shelf.alone(name)

    def adapters(self, ask: Ask, vector: NDArray[np.float32]) -> Adapters:
        """Keep the global adapter of a round, and return it with the earlier ones of which a
        simulated attacker makes use; also for a round that is repeated.
        """
        kept = self._shelf.read(Adapters, f"adapters-{ask.run}")
        if kept and kept.round == ask.round:
            return kept
        before, first = (kept.now, kept.first) if kept else (None, vector)
        self._shelf.write(f"adapters-{ask.run}", now := Adapters(ask.round, vector, before, first))
        return now

    def first_release(self, ask: Ask, release: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return what a simulated attacker would have sent honestly in its first round of the run,
        and keep ``release`` if this is it.

        None in that round, also when it is repeated.
        """
        kept = self._shelf.read(_First, f"first-{ask.run}")
        if kept is None:
            self._shelf.write(f"first-{ask.run}", _First(ask.round, release))
            return None
        return kept.release if kept.round < ask.round else None
