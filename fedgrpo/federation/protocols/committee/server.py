"""The server's side of the committee: a round as a relay, and members who vouch for the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from fedgrpo.federation.protocols.base import (
    Failures,
    Round,
    RoundOutcome,
    ServerSide,
    commitments_of,
    read_result,
    values_of,
)
from fedgrpo.federation.protocols.committee.cosigning import Cosigning
from fedgrpo.federation.protocols.committee.messages import Dealer
from fedgrpo.federation.protocols.committee.roll import CommitteeError
from fedgrpo.federation.protocols.committee.round import CommitteeServer
from fedgrpo.federation.protocols.committee.seats import Place
from fedgrpo.federation.wire.exchange import Replies
from fedgrpo.federation.wire.link import Answers, Link
from fedgrpo.federation.wire.participants import Participant, read_participants
from fedgrpo.ground.errors import CohortError


@dataclass
class Server(ServerSide):
    """Has members aggregate, and vouch for the ledger where there is one."""

    def __post_init__(self) -> None:
        self.committee = CommitteeServer(self.settings)
        self._cosigning = Cosigning(self.ledger) if self.ledger else None

    def aggregate(self, current: Round, replies: Replies) -> tuple[RoundOutcome, Failures]:
        """Have the participants deal to four members, and take what these open."""
        place = Place.of(self.settings, current.run, current.number)
        participants: Answers[Participant[Dealer]] = read_participants(
            replies, current.link.header, partial(self.committee.read, place)
        )
        # What was not opened shows nobody anything and costs nothing; but a round that was begun
        # before and interrupted may have been opened at that time.
        unopened = RoundOutcome(released=current.repeated)
        if problem := self.missing(participants):
            return replace(unopened, reason=problem), participants.failures
        try:
            result = self.committee.run(
                current.link, values_of(participants), current.plan, current.phase
            )
        except CommitteeError as error:
            released = error.released or current.repeated
            return RoundOutcome(error.problem, released=released), participants.failures
        except CohortError as error:
            return replace(unopened, reason=error.problem), participants.failures
        outcome = RoundOutcome(
            aggregate=read_result(self.settings, current.plan, result.mean),
            finished=len(result.clients),
            buckets=result.groups,
            commitments=commitments_of(participants, set(result.clients)),
            members=tuple(keys.signing.hex() for keys in result.members),
        )
        return outcome, participants.failures | result.failures

    def close(self, link: Link) -> None:
        """Have the members that are there vouch for the ledger."""
        if self._cosigning:
            self.committee.missed(self._cosigning.collect(link, self.committee.signers))
