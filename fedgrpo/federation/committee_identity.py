"""A node as a committee member: where its keys come from, and what it keeps on its own disk.

Adversary: a server that may ask for any round any number of times, and kill or mislead nodes in
between. What a member has promised is on disk before anything leaves it, so a restart of server or
node does not make it forget:

* attempts are numbered through a run and only go up, and masks are bound to the number, so none
  serves twice;
* keys are tossed once for a run: repeated, the toss is the same one
  (:func:`fedgrpo.secure.committee.toss_keys`), so a server or a member that breaks it off does not
  get to choose;
* rounds only go forward;
* a round has one set of inputs: once a member has taken inputs to be opened, it computes no other
  ones in that round. Repeating a round on the same inputs opens the same totals with the same noise
  (:func:`fedgrpo.secure.committee.aggregate`), so that round is released once and costs epsilon
  once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from flwr.app import Context

from fedgrpo.derivation import KEY_BYTES
from fedgrpo.errors import ProtocolError
from fedgrpo.federation.node_store import NodeStore, Note
from fedgrpo.secure.committee import ComponentKeys, Identity
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings

_LOST_KEYS = "a member that lost its keys needs a new run"
KEY_FILE = "committee-key"
"""Key of a node's own configuration: the file with a member's private keys, of mode 0600."""


def is_simulated(context: Context) -> bool:
    """Whether this node is one of a simulation."""
    return "partition-id" in context.node_config


def can_be_member(context: Context, settings: Settings) -> bool:
    """Whether this node has keys as a member: from its file, or because it is simulated.

    In a simulation, the four members are the first holders that attack nobody.
    """
    if not is_simulated(context):
        return KEY_FILE in context.node_config
    place = int(context.node_config["partition-id"]) - settings.simulation.byzantine
    return place in range(MEMBERS)


def member_identity(context: Context, store: NodeStore) -> Identity:
    """Return a node's keys as a member; a simulated one derives them from its own secret.

    Raises
    ------
    ProtocolError
        If the node has none, or they cannot be read.
    """
    if KEY_FILE in context.node_config:
        return _read(Path(str(context.node_config[KEY_FILE])))
    if not is_simulated(context):
        raise ProtocolError(
            "this node has no keys as a committee member",
            cure=f"make some with 'fedgrpo committee-key FILE' and start it with {KEY_FILE}",
        )
    return Identity(store.derive("member signing"), store.derive("member agreement"))


def _read(path: Path) -> Identity:
    try:
        if path.stat().st_mode & 0o077:
            raise ProtocolError(
                f"others than its owner may read {path}", cure=f"run chmod 600 {path}"
            )
        return Identity.from_bytes(path.read_bytes())
    except OSError as error:
        raise ProtocolError(
            f"committee key {path} cannot be read ({type(error).__name__})",
            cure=f"make it with 'fedgrpo committee-key {path}'",
        ) from None


@dataclass(frozen=True)
class Pledge:
    """What a member has promised in one run.

    Attributes
    ----------
    keys:
        Component keys of the run.
    committed:
        Digest (hex) of what each other member committed to when the run's keys were tossed, by its
        number; empty before this member revealed anything.
    attempt:
        Number of the last attempt, at tossing keys or at a round.
    round:
        The last round that it began to compute.
    inputs:
        Digest (hex) of the inputs that it took to be opened in that round; empty before.
    """

    keys: ComponentKeys | None = field(default=None, repr=False)
    committed: Mapping[int, str] = field(default_factory=dict)
    attempt: int = 0
    round: int = 0
    inputs: str = ""

    def tossing(self, attempt: int) -> Pledge:
        """Begin to toss the run's keys.

        Raises
        ------
        ProtocolError
            If keys have served already, or the attempt is not new.
        """
        if self.round:
            raise ProtocolError(
                f"asked to toss keys after those of round {self.round}", cure=_LOST_KEYS
            )
        return self._attempting(attempt)

    def revealing(self, committed: Mapping[int, bytes]) -> Pledge:
        """Take what the others have committed to, before revealing anything to them.

        Raises
        ------
        ProtocolError
            If one of them committed to something else before.
        """
        digests = {member: digest.hex() for member, digest in committed.items()}
        for member, before in self.committed.items():
            if digests[member] != before:
                raise ProtocolError(
                    f"committee member {member} contributes something else to the run's keys than "
                    "it did before the toss was interrupted",
                    cure=_LOST_KEYS,
                )
        return replace(self, committed=digests)

    def computing(self, attempt: int, round: int) -> Pledge:
        """Begin to compute a round.

        Raises
        ------
        ProtocolError
            If the attempt is not new, or a later round was begun.
        """
        if round < self.round:
            raise ProtocolError(
                f"asked for round {round} after round {self.round}", cure="go on with the next one"
            )
        inputs = self.inputs if round == self.round else ""
        return replace(self._attempting(attempt), round=round, inputs=inputs)

    def opening(self, digest: bytes) -> Pledge:
        """Take inputs to be opened in the round.

        Raises
        ------
        ProtocolError
            If others were taken before.
        """
        if self.inputs not in ("", digest.hex()):
            raise ProtocolError(
                f"round {self.round} was computed on other inputs before it was interrupted",
                cure="go on with the next round",
            )
        return replace(self, inputs=digest.hex())

    def _attempting(self, attempt: int) -> Pledge:
        if attempt <= self.attempt:
            raise ProtocolError(
                f"attempt {attempt} is not after attempt {self.attempt}",
                cure="number attempts as the members say",
            )
        return replace(self, attempt=attempt)


@dataclass(frozen=True)
class Pledges:
    """A member's pledge in one run, kept in the node's store."""

    store: NodeStore
    run: str

    @property
    def contribution(self) -> bytes:
        """What this member's part of the run's keys is made from (32 bytes), in every attempt."""
        return self.store.derive("toss", self.run)

    def read(self) -> Pledge:
        """Return what was promised so far."""
        note = self.store.read_note(self._name)
        if note is None:
            return Pledge()
        keys = {int(m): key.tobytes() for m, key in note.arrays.items()}
        committed = {int(m): digest for m, digest in note.facts["committed"].items()}
        facts = {**note.facts, "committed": committed}
        return Pledge(ComponentKeys(keys) if keys else None, **facts)

    def make(self, pledge: Callable[[Pledge], Pledge]) -> Pledge:
        """Promise something more. It is on disk when this returns."""
        before = self.read()
        if (after := pledge(before)) != before:
            keys = after.keys.keys if after.keys else {}
            facts = {
                name: getattr(after, name) for name in ("committed", "attempt", "round", "inputs")
            }
            arrays = {str(m): np.frombuffer(key, np.uint8, KEY_BYTES) for m, key in keys.items()}
            self.store.write_note(self._name, Note(facts, arrays))
        return after

    @property
    def _name(self) -> str:
        return f"member-{self.run}"
