"""The server's side of buckets: masked sums, and the robust rule over their means."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import Message

from fedgrpo.federation.protocols.base import Failures, Round, RoundOutcome, values_of
from fedgrpo.federation.protocols.buckets.secure_round import (
    read_participant,
    secure_bucket_means,
)
from fedgrpo.federation.protocols.means import MeansServer
from fedgrpo.federation.wire.exchange import Replies
from fedgrpo.federation.wire.link import Answers
from fedgrpo.federation.wire.participants import Participant, read_participants
from fedgrpo.federation.wire.plans import order_digest
from fedgrpo.secure.roster import PublicKeys


@dataclass
class Server(MeansServer):
    """Trims means of buckets."""

    def aggregate(self, current: Round, replies: Replies[Message]) -> tuple[RoundOutcome, Failures]:
        """Draw the participants into buckets, sum each under masks, and combine the means."""
        participants: Answers[Participant[PublicKeys]] = read_participants(
            replies, current.link.header, lambda _, content: read_participant(content)
        )
        if problem := self.missing(participants):
            return RoundOutcome(problem), participants.failures
        names = {node: participant.tag.name for node, participant in participants.values.items()}
        means = secure_bucket_means(
            current.link,
            values_of(participants),
            current.plan,
            self.settings.secure.bucket_size,
            current.phase,
            order=order_digest(
                self.settings, current.adapter, current.plan.clipping_norm, current.plan.radius
            ),
            key=self.key("buckets", current),
            admit=lambda opened: self.openings.admit(
                current.number, [frozenset(names[node] for node in one) for one in opened]
            ),
        )
        return self.combined(current, means, participants)
