"""What a node has promised in a run over a committee, on its own disk before anything leaves it.

Adversary: a server that may ask for any round any number of times, and kill or mislead nodes in
between. A restart of server or node does not make a node forget:

* a round has one seating: once a node has dealt, tossed or computed in it, it does so under no
  other one in that round. Two seatings would put two noises on the same releases;
* attempts are numbered through a round and only go up, and masks are bound to both numbers, so none
  serves twice;
* keys are tossed once for a seating: repeated, the toss is the same one
  (:func:`fedgrpo.secure.committee.toss_keys`), so a server or a member that breaks it off does not
  get to choose;
* rounds only go forward;
* a round has one set of inputs: once a member has taken inputs to be opened, it computes no other
  ones in that round. Repeating a round on the same inputs opens the same totals with the same noise
  (:func:`fedgrpo.secure.committee.aggregate`), so that round is released once and costs epsilon
  once;
* nodes keep the keys by which a member first saw them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fedgrpo.federation.protocols.committee.convening.seats import MOST_ATTEMPTS, DealingKey
from fedgrpo.federation.state.node_store import NodeStore
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import ComponentKeys

_LOST_KEYS = "a member that lost its keys needs a new run, or another one in its place"


@dataclass(frozen=True)
class Toss:
    """What a member holds of one seating's toss."""

    keys: ComponentKeys | None = field(default=None, repr=False)
    """Component keys; None before they are tossed."""
    committed: Mapping[int, str] = field(default_factory=dict)
    """Digest (hex) of what each other member committed to, by its number; empty before this member
    revealed anything."""
    served: bool = False
    """Whether a round was begun with the keys."""


@dataclass(frozen=True)
class Pledge:
    """What a node has promised in one run."""

    round: int = 0
    """The last round that it dealt in, tossed keys in or began to compute; 0 before the first."""
    seating: str = ""
    """Name (64 hex digits) of the four members of that round."""
    attempt: int = 0
    """Number of its last attempt in that round."""
    inputs: str = ""
    """Digest (hex) of the inputs that it took to be opened in that round; empty before."""
    tosses: Mapping[str, Toss] = field(default_factory=dict)
    """Keys by the name of their seating."""
    pins: Mapping[int, str] = field(default_factory=dict)
    """Identities (hex) of the run's nodes as first seen, by node."""

    @property
    def toss(self) -> Toss:
        """What it holds of its seating's toss."""
        return self.tosses.get(self.seating, Toss())

    @property
    def ready(self) -> tuple[str, ...]:
        """Names of the seatings whose keys it holds, ascending."""
        return tuple(sorted(name for name, toss in self.tosses.items() if toss.keys))

    def sitting(self, round: int, seating: str) -> Pledge:
        """Take a seating for a round; raises ProtocolError if a later round was begun, or this one
        under another seating.
        """
        if round < self.round:
            raise ProtocolError(
                f"asked for round {round} after round {self.round}", cure="go on with the next one"
            )
        if round > self.round:
            return replace(self, round=round, seating=seating, attempt=0, inputs="")
        if seating != self.seating:
            raise ProtocolError(
                f"round {round} was begun under seating {self.seating[:12]}, and is now asked for "
                f"under {seating[:12]}",
                cure="go on with the next round",
            )
        return self

    def tossing(self, attempt: int, round: int, seating: str) -> Pledge:
        """Begin to toss a seating's keys; raises ProtocolError if they have served already, the
        attempt is not new, or as for :meth:`sitting`.
        """
        after = self.sitting(round, seating)
        if after.toss.served:
            raise ProtocolError(
                f"asked to toss keys of seating {seating[:12]} that have served", cure=_LOST_KEYS
            )
        return after._attempting(attempt)

    def during(self, attempt: int, round: int, seating: str) -> Pledge:
        """Go on with an attempt; raises ProtocolError if another one has begun since."""
        if (self.attempt, self.round, self.seating) != (attempt, round, seating):
            raise ProtocolError(
                f"attempt {attempt} of round {round} goes on after attempt {self.attempt} of round "
                f"{self.round} has begun",
                cure="end an attempt before the next one",
            )
        return self

    def revealing(self, committed: Mapping[int, bytes]) -> Pledge:
        """Take what the others have committed to, before revealing anything to them; raises
        ProtocolError if one of them committed to something else before.
        """
        digests = {member: digest.hex() for member, digest in committed.items()}
        for member, before in self.toss.committed.items():
            if digests[member] != before:
                raise ProtocolError(
                    f"committee member {member} contributes something else to the seating's keys "
                    "than it did before the toss was interrupted",
                    cure=_LOST_KEYS,
                )
        return self._with(replace(self.toss, committed=digests))

    def holding(self, keys: ComponentKeys) -> Pledge:
        """Keep the seating's keys."""
        return self._with(replace(self.toss, keys=keys))

    def computing(self, attempt: int, round: int, seating: str) -> Pledge:
        """Begin to compute a round; raises ProtocolError if the attempt is not new, or as for
        :meth:`sitting`.
        """
        after = self.sitting(round, seating)._attempting(attempt)
        return after._with(replace(after.toss, served=True))

    def opening(self, digest: bytes) -> Pledge:
        """Take inputs to be opened; raises ProtocolError if others were taken before."""
        if self.inputs not in ("", digest.hex()):
            raise ProtocolError(
                f"round {self.round} was computed on other inputs before it was interrupted",
                cure="go on with the next round",
            )
        return replace(self, inputs=digest.hex())

    def seeing(self, clients: Mapping[int, DealingKey]) -> Pledge:
        """Pin the nodes of proven clients that are seen for the first time."""
        seen = {client.node: client.identity.hex() for client in clients.values()}
        return replace(self, pins=seen | dict(self.pins))

    def _with(self, toss: Toss) -> Pledge:
        return replace(self, tosses={**self.tosses, self.seating: toss})

    def _attempting(self, attempt: int) -> Pledge:
        if not self.attempt < attempt <= MOST_ATTEMPTS:
            raise ProtocolError(
                f"attempt {attempt} of round {self.round} is not after attempt {self.attempt}, or "
                f"is above {MOST_ATTEMPTS}",
                cure="number attempts as the members say",
            )
        return replace(self, attempt=attempt)


@dataclass(frozen=True)
class Pledges:
    """A node's pledge in one run, kept in its store."""

    store: NodeStore
    run: str

    @property
    def contribution(self) -> bytes:
        """What this member's part of all keys of the run is made from (32 bytes), in every
        attempt; each toss takes its own from it.
        """
        return self.store.derive("toss", self.run)

    def read(self) -> Pledge:
        """Return what was promised so far."""
        return self.store.read_note(Pledge, self._name) or Pledge()

    def make(self, pledge: Callable[[Pledge], Pledge]) -> Pledge:
        """Promise something more. It is on disk when this returns.

        Of several processes of the node one promises at a time: what it is held against is what the
        others have promised.
        """
        with self.store.alone(self._name):
            before = self.read()
            if (after := pledge(before)) != before:
                self.store.write_note(self._name, after)
        return after

    @property
    def _name(self) -> str:
        return f"member-{self.run}"
