"""From the answers to the order to train to one robust mean, in each protocol."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from fedgrpo.federation.protocols.buckets.secure_round import (
    Failures,
    SecureResult,
    read_participant,
    secure_bucket_means,
)
from fedgrpo.federation.protocols.committee.messages import Dealer
from fedgrpo.federation.protocols.committee.roll import CommitteeError
from fedgrpo.federation.protocols.committee.round import CommitteeServer
from fedgrpo.federation.protocols.committee.seats import Place
from fedgrpo.federation.protocols.openings import Openings
from fedgrpo.federation.protocols.plain_round import plain_groups, read_plain
from fedgrpo.federation.server.round import (
    RoundClock,
    RoundOutcome,
    read_opened,
    robust_aggregate,
)
from fedgrpo.federation.wire.exchange import Replies
from fedgrpo.federation.wire.link import Answers, Link
from fedgrpo.federation.wire.participants import Participant, read_participants
from fedgrpo.federation.wire.plans import order_digest
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import CohortError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.secure.roster import PublicKeys
from fedgrpo.settings import Settings

T = TypeVar("T")


@dataclass
class Round:
    """The round that is running, and what came of it so far.

    Attributes
    ----------
    adapter:
        That it began with.
    repeated:
        Whether it was begun before and interrupted.
    run:
        Name of the run, the same after a resume.
    replies:
        To the order to train.
    """

    clock: RoundClock
    link: Link
    plan: ReleasePlan
    adapter: AdapterState
    repeated: bool
    run: str
    replies: Replies = field(default_factory=lambda: Replies({}, {}))
    outcome: RoundOutcome = field(default_factory=RoundOutcome)


@dataclass
class Gathering:
    """Brings a round's releases together as the settings' protocol has it.

    Parameters
    ----------
    settings:
        The run's.
    secret:
        The server's (32 bytes), from which its randomness is derived.
    openings:
        Which sums it has opened.

    Attributes
    ----------
    committee:
        What the server knows of it, where there is one.
    """

    settings: Settings
    secret: bytes
    openings: Openings

    def __post_init__(self) -> None:
        self.committee = CommitteeServer(self.settings)
        self._protocols = {
            "buckets": self._by_buckets,
            "plain": self._plainly,
            "committee": self._by_committee,
        }

    def gather(self, current: Round, replies: Replies) -> tuple[RoundOutcome, Failures]:
        """Return the robust mean, or the reason why there is none; and why nodes are missing."""
        return self._protocols[self.settings.aggregation.protocol](current, replies)

    def _by_buckets(self, current: Round, replies: Replies) -> tuple[RoundOutcome, Failures]:
        participants: Answers[Participant[PublicKeys]] = read_participants(
            replies, current.link.header, lambda _, content: read_participant(content)
        )
        if problem := self._missing(participants):
            return RoundOutcome(problem), participants.failures
        names = {node: participant.tag.name for node, participant in participants.values.items()}
        sums = secure_bucket_means(
            current.link,
            _values(participants),
            current.plan,
            self.settings.secure.bucket_size,
            current.clock.phase,
            order=order_digest(self.settings, current.adapter, current.plan.clipping_norm),
            key=self._key("buckets", current),
            admit=lambda opened: self.openings.admit(
                current.clock.round, [frozenset(names[node] for node in one) for one in opened]
            ),
        )
        return self._combined(current, sums, participants)

    def _plainly(self, current: Round, replies: Replies) -> tuple[RoundOutcome, Failures]:
        releases = read_participants(
            replies, current.link.header, lambda _, c: read_plain(c, current.plan)
        )
        if problem := self._missing(releases):
            return RoundOutcome(problem), releases.failures
        return self._combined(current, plain_groups(_values(releases)), releases)

    def _combined(
        self, current: Round, sums: SecureResult, participants: Answers[Participant[T]]
    ) -> tuple[RoundOutcome, Failures]:
        """Apply the robust rule to means that the server sees."""
        failures = participants.failures | sums.failures
        with current.clock.phase("aggregate"):
            try:
                aggregate = robust_aggregate(
                    self.settings, current.plan, sums.means, self._key("server noise", current)
                )
            except CohortError as error:
                return RoundOutcome(error.problem, buckets=len(sums.means)), failures
        survivors = {node for bucket in sums.means for node in bucket.survivors}
        outcome = RoundOutcome(
            aggregate=aggregate,
            finished=sums.survivors,
            buckets=len(sums.means),
            commitments=_commitments(participants, survivors),
        )
        return outcome, failures

    def _by_committee(self, current: Round, replies: Replies) -> tuple[RoundOutcome, Failures]:
        place = Place.of(self.settings, current.run, current.clock.round)
        participants: Answers[Participant[Dealer]] = read_participants(
            replies, current.link.header, partial(self.committee.read, place)
        )
        # What was not opened shows nobody anything and costs nothing; but a round that was begun
        # before and interrupted may have been opened at that time.
        unopened = RoundOutcome(released=current.repeated)
        if problem := self._missing(participants):
            return replace(unopened, reason=problem), participants.failures
        try:
            result = self.committee.run(
                current.link, _values(participants), current.plan, current.clock.phase
            )
        except CommitteeError as error:
            released = error.released or current.repeated
            return RoundOutcome(error.problem, released=released), participants.failures
        except CohortError as error:
            return replace(unopened, reason=error.problem), participants.failures
        outcome = RoundOutcome(
            aggregate=read_opened(self.settings, current.plan, result.mean),
            finished=len(result.clients),
            buckets=result.groups,
            commitments=_commitments(participants, set(result.clients)),
            members=tuple(keys.signing.hex() for keys in result.members),
        )
        return outcome, participants.failures | result.failures

    def _missing(self, participants: Answers[T]) -> str:
        """Say so if too few finished."""
        finished, least = len(participants.values), self.settings.federation.min_clients
        if finished >= least:
            return ""
        return f"{finished} of {participants.asked} clients finished, {least} are needed"

    def _key(self, purpose: str, current: Round) -> bytes:
        """Return the server's key for one purpose in the round that is running."""
        return derive_key(self.secret, purpose, current.clock.round)


def _values(participants: Answers[Participant[T]]) -> dict[int, T]:
    return {node: participant.value for node, participant in participants.values.items()}


def _commitments(participants: Answers[Participant[T]], nodes: Set[int]) -> tuple[str, ...]:
    """Commitments of some of the participants, in the participants' order."""
    found = participants.values.items()
    return tuple(participant.tag.commitment for node, participant in found if node in nodes)
