"""The committee on the server: a relay between clients and members, who vouch for the ledger, too.

Adversary: the server runs this code and is honest but curious. It sees who takes part, lengths and
times, and the opened mean with its noise; never a release, and no sum without noise. A malicious
one can end rounds, and choose which four of the listed members sit in one. It cannot read or alter
a message, seat anybody else, choose the noise, or have a round opened twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import (
    Failures,
    Phase,
    Round,
    RoundOutcome,
    ServerSide,
    commitments_of,
    read_result,
    values_of,
)
from fedgrpo.federation.protocols.committee.convening.messages import (
    DEAL,
    Dealer,
    DealOrder,
    Dealt,
    Progress,
)
from fedgrpo.federation.protocols.committee.convening.plan import (
    committee_plan,
    mean_of,
    shortened,
)
from fedgrpo.federation.protocols.committee.convening.roll import CommitteeError, Roll
from fedgrpo.federation.protocols.committee.convening.seats import Place
from fedgrpo.federation.protocols.committee.cosigning import Cosigning
from fedgrpo.federation.protocols.committee.sitting import Sitting
from fedgrpo.federation.wire.codec import decode, encode
from fedgrpo.federation.wire.exchange import Replies
from fedgrpo.federation.wire.link import Answers, Link
from fedgrpo.federation.wire.participants import Participant, read_participants
from fedgrpo.ground.errors import CohortError, ProtocolError
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.settings import Settings


@dataclass
class Server(ServerSide):
    """Has members aggregate, and vouch for the ledger where there is one."""

    def __post_init__(self) -> None:
        self.committee = CommitteeServer(self.settings)
        self._cosigning = Cosigning(self.ledger) if self.ledger else None

    @classmethod
    def shortened(cls, by: int) -> AbstractContextManager[None]:
        """Choose bits and circuit as for whole vectors."""
        return shortened(by)

    def aggregate(self, current: Round, replies: Replies[Message]) -> tuple[RoundOutcome, Failures]:
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


@dataclass(frozen=True)
class CommitteeMean:
    """What a round opened."""

    mean: NDArray[np.float64]
    """float64, shape (size,): robust mean of the releases, noised."""
    clients: tuple[int, ...]
    """Nodes whose releases were shared out to the members properly."""
    groups: int
    """Values that the rule saw in each coordinate."""
    members: tuple[MemberKeys, ...]
    """The four that sat in the round and computed it."""
    failures: Failures
    """Why nodes are missing from it."""


@dataclass
class CommitteeServer:
    """What the server knows of the committee in one run."""

    settings: Settings
    identities: dict[int, bytes] = field(default_factory=dict)
    """Of each node, as first seen by this process; the members keep their own."""

    def __post_init__(self) -> None:
        self.roll = Roll(self.settings)

    @property
    def signers(self) -> dict[int, str]:
        """Signing keys (hex) of the members that are there, by node."""
        return {node: keys.signing.hex() for keys, node in self.roll.there.items()}

    def missed(self, nodes: Set[int]) -> None:
        """Take note of members that did not answer: nobody waits for them until they are back."""
        self.roll.leave(nodes)

    def read(self, place: Place, node: int, content: RecordDict) -> Dealer:
        """Read a node's answer to the order to train; raises ProtocolError if it is malformed, its
        seat or its dealing key is not proven, or the node signs with another key than before.
        """
        dealer = decode(Dealer, content)
        dealer.check(place, node)
        identity = dealer.dealing.identity
        if self.identities.setdefault(node, identity) != identity:
            raise ProtocolError(
                f"node {node} signs with another key than earlier in this run",
                cure="a node that lost its folder needs a new run",
            )
        return dealer

    def run(
        self, link: Link, dealers: Mapping[int, Dealer], plan: ReleasePlan, phase: Phase
    ) -> CommitteeMean:
        """Have the participants' releases dealt and aggregated.

        Raises
        ------
        CohortError
            If there are too few dealers; nothing has been dealt.
        CommitteeError
            If the members came to no result.
        """
        committee_plan(self.settings, plan, len(dealers))
        sitting = Sitting(self.settings, link, plan.size, self.roll.seat(dealers))
        # By their keys, which a repeated round finds again, while Flower's ids may be others.
        nodes = dict(enumerate(sorted(dealers, key=lambda node: dealers[node].dealing.key)))
        clients = {number: dealers[node].dealing for number, node in nodes.items()}
        try:
            with phase("committee"):
                sitting.toss()
            with phase("deal"):
                order = encode(link.header, DealOrder(sitting.seats, clients))
                dealt = link.ask(
                    DEAL, dict.fromkeys(dealers, order), lambda _, c: decode(Dealt, c).ciphertexts
                )
            # All that members can admit: too few end the round before they compute anything.
            committee_plan(self.settings, plan, len(dealt.values))
            messages = {n: dealt.values[node] for n, node in nodes.items() if node in dealt.values}
            with phase("committee"):
                progress = sitting.compute(clients, messages)
        except CommitteeError:
            self.roll.blame(sitting.members[m] for m in sitting.to_blame)
            self.roll.leave({sitting.seats[m].node for m in sitting.lost})
            raise
        self.roll.forgive(sitting.members)
        return self._read(progress, nodes, dealt.failures, plan, sitting.members)

    def _read(
        self,
        progress: Mapping[int, Progress],
        nodes: Mapping[int, int],
        failures: Failures,
        plan: ReleasePlan,
        members: tuple[MemberKeys, ...],
    ) -> CommitteeMean:
        """Take the result, on which the members must agree. ``nodes`` are the dealers by number."""
        first = next(iter(progress.values()))
        agree = all(
            p.clients == first.clients and np.array_equal(_totals(p), _totals(first))
            for p in progress.values()
        )
        if not agree or first.totals is None or not set(first.clients) <= set(nodes):
            raise CommitteeError(
                "the committee's members report different results",
                cure="have the members checked: at least one of them lies",
                released=True,
            )
        computed = committee_plan(self.settings, plan, len(first.clients))
        left_out = {nodes[n]: "its shares did not fit" for n in set(nodes) - set(first.clients)}
        return CommitteeMean(
            mean_of(first.totals, computed, plan),
            tuple(nodes[number] for number in first.clients),
            computed.groups,
            members,
            left_out | failures,
        )


def _totals(progress: Progress) -> NDArray[np.uint64]:
    return np.zeros(0, np.uint64) if progress.totals is None else progress.totals
