"""What the server's loop and a node's process ask of a protocol: its two sides under Flower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flwr.app import Context, Message, RecordDict
from numpy import float64, zeros
from numpy.typing import NDArray

from fedgrpo.federation.protocols.openings import Openings
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.state.node_store import Ask, NodeStore
from fedgrpo.federation.wire.codec import Header
from fedgrpo.federation.wire.exchange import Collection, Replies, as_it_is
from fedgrpo.federation.wire.link import Answers, Link
from fedgrpo.federation.wire.participants import Participant
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ledger import Ledger
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import Aggregate, ReleasePlan, read_aggregate
from fedgrpo.settings import OWN, Settings

T = TypeVar("T")

Phase = Callable[[str], AbstractContextManager[None]]
"""Entered with a stage's name while the stage runs."""

Failures = dict[int, str]
"""Why nodes are missing."""

Handler = Callable[[RecordDict, Context, Settings], RecordDict]
"""A node's answer to a message after training: its content, under the round's settings."""


@dataclass(frozen=True)
class RoundOutcome:
    """What a round came to.

    Attributes
    ----------
    reason:
        Why it was skipped; empty for a round that changed the adapter.
    aggregate:
        What was read from the robust mean, if the round was not skipped.
    finished:
        Nodes whose update is in the result; 0 if the round was skipped.
    dropped:
        Nodes that were asked and lost on the way.
    buckets:
        Values that the rule saw in each coordinate.
    cohort:
        Nodes that were asked.
    commitments:
        Of the nodes in the result to their releases.
    members:
        Signing keys (hex) of the committee members that computed the result; none without one.
    released:
        Whether anything of the round can have come out, so that it counts for epsilon.
    """

    reason: str = ""
    aggregate: Aggregate | None = None
    finished: int = 0
    dropped: int = 0
    buckets: int = 0
    cohort: int = 0
    commitments: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    released: bool = True


@dataclass
class Round:
    """The round that is running on the server, and what came of it so far.

    Attributes
    ----------
    phase:
        Times a stage.
    adapter:
        That it began with.
    repeated:
        Whether it was begun before and interrupted.
    run:
        Name of the run, the same after a resume.
    replies:
        To the order to train.
    last:
        See :class:`fedgrpo.federation.server.checkpoint.ServerState`.
    """

    phase: Phase
    link: Link
    plan: ReleasePlan
    adapter: AdapterState
    repeated: bool
    run: str
    replies: Replies[Message] = field(default_factory=lambda: Replies({}, {}))
    outcome: RoundOutcome = field(default_factory=RoundOutcome)
    last: NDArray[float64] = field(default_factory=lambda: zeros(0))

    @property
    def number(self) -> int:
        """Round number, from 1."""
        return self.link.header.round


@dataclass
class ServerSide(ABC):
    """How the server brings a round's releases together.

    Parameters
    ----------
    settings:
        The run's.
    secret:
        The server's (32 bytes), from which its randomness is derived.
    openings:
        Which sums it has opened.
    ledger:
        Where rounds are entered, if anywhere.
    """

    settings: Settings
    secret: bytes
    openings: Openings
    ledger: Ledger | None

    @classmethod
    def shortened(cls, by: int) -> AbstractContextManager[None]:
        """Play rounds over vectors that are so many coordinates shorter as if they were whole, so
        that their messages tell what those of whole vectors take.
        """
        del by
        return nullcontext()

    def collection(self, current: Round) -> Collection[Message]:
        """How the answers to the order to train are collected: as they are."""
        del current
        return Collection(as_it_is)

    @abstractmethod
    def aggregate(self, current: Round, replies: Replies[Message]) -> tuple[RoundOutcome, Failures]:
        """Return the robust mean, or the reason why there is none; and why nodes are missing."""

    def close(self, link: Link) -> None:  # noqa: B027 - most protocols leave nothing to do.
        """Do what is left to do once a round, or the end, is in the ledger."""

    def missing(self, participants: Answers[T]) -> str:
        """Say so if too few finished."""
        finished, least = len(participants.values), self.settings.federation.min_clients
        if finished >= least:
            return ""
        return f"{finished} of {participants.asked} clients finished, {least} are needed"

    def key(self, purpose: str, current: Round) -> bytes:
        """Return the server's key for one purpose in the round that is running."""
        return derive_key(self.secret, purpose, current.number)


@dataclass(frozen=True)
class Answering:
    """A node that has charged for a release, and is about to answer the order to train.

    Attributes
    ----------
    header:
        Of the order.
    ask:
        Which release was asked for.
    plan:
        What it looks like.
    digest:
        Of the order, on which all whose releases are summed must agree.
    minimum_bucket:
        Least number of clients among which the update may be hidden, as the node has it.
    """

    header: Header
    context: Context
    settings: Settings
    store: NodeStore
    ask: Ask
    plan: ReleasePlan
    digest: bytes
    minimum_bucket: int

    @property
    def memory(self) -> NodeMemory:
        """What the node keeps between messages."""
        return NodeMemory(self.context.state)


class NodeSide(ABC):
    """How a node lets its release go.

    Attributes
    ----------
    handlers:
        Answers to the messages after training, by the names in the protocol's description.
    """

    handlers: Mapping[str, Handler] = {}

    @abstractmethod
    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Write the answer to the order to train, and keep what later messages need."""


def read_result(settings: Settings, plan: ReleasePlan, mean: NDArray[float64]) -> Aggregate:
    """Read a robust mean, noised already where anybody but the clients adds the noise.

    Metrics that no client sends are left out: where they would be is a half, or noise about it.
    """
    aggregate = read_aggregate(mean, plan)
    names: tuple[str, ...] = settings.privacy.metrics
    sent = {n: v for n, v in aggregate.metrics.items() if n in names or n.startswith(OWN)}
    return replace(aggregate, metrics=sent)


def values_of(participants: Answers[Participant[T]]) -> dict[int, T]:
    """Keys or releases by node."""
    return {node: participant.value for node, participant in participants.values.items()}


def commitments_of(participants: Answers[Participant[T]], nodes: Set[int]) -> tuple[str, ...]:
    """Commitments of some of the participants, in the participants' order."""
    found = participants.values.items()
    return tuple(participant.tag.commitment for node, participant in found if node in nodes)
