"""What a committee member is made from in one round: in this process, or again in another.

Adversary: as for :mod:`fedgrpo.federation.protocols.committee.member`. What is put away holds
shares: it stays in the node's own memory of the run, and is wiped when the task ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Context, RecordDict

from fedgrpo.federation.protocols.committee.convening.identity import KEY_FILE, member_identity
from fedgrpo.federation.protocols.committee.convening.messages import TOSS, Work
from fedgrpo.federation.protocols.committee.convening.plan import (
    check_listed,
    committee_of,
    committee_plan,
    dealing_session,
    is_direct,
)
from fedgrpo.federation.protocols.committee.convening.pledges import Pledge, Pledges
from fedgrpo.federation.protocols.committee.convening.seats import (
    DealingKey,
    Place,
    Seat,
    check_seating,
    proven_clients,
)
from fedgrpo.federation.state.memory import ROUND, NodeMemory
from fedgrpo.federation.state.node_store import NodeStore
from fedgrpo.federation.wire.codec import Header, put, take
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.secure.committee import (
    Admitted,
    Committee,
    ComponentKeys,
    Identity,
    Member,
    MemberKeys,
    Party,
    Plan,
    admit,
    aggregate,
    toss_keys,
)
from fedgrpo.secure.committee.compute.planes import Words
from fedgrpo.settings import Settings

WORK = f"{ROUND}work"
"""What the names of a committee member's records of one round begin with."""
_PINNED = "fedgrpo.committee"


@dataclass
class Outcome:
    """What a member's generator has come to."""

    keys: ComponentKeys | None = None
    admitted: Admitted | None = None
    totals: Words | None = None


@dataclass
class Job:
    """One member's task in one round: enough to make its generator again in another process."""

    settings: Settings
    header: Header
    release: ReleasePlan
    identity: Identity
    pledges: Pledges
    work: Work
    order: bytes
    """Digest of what this node was ordered to compute itself."""
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def committee(self) -> Committee:
        """The four members that sit in the round."""
        return committee_of(self.settings, self.work.members)

    @property
    def index(self) -> int:
        """The member's number; raises ProtocolError if this node is none."""
        if self.identity.public not in self.work.members:
            raise ProtocolError(
                "this node's keys as a committee member are none of the committee's",
                cure=f"start it with the {KEY_FILE} whose public keys aggregation.committee lists",
            )
        return self.work.members.index(self.identity.public)

    @property
    def session(self) -> bytes:
        """Name of the toss, one for the seating, or of the dealing."""
        run = self.pledges.run
        if self.work.task == TOSS:
            return self.committee.session(run, 0, hashlib.sha256(b"toss").digest())
        roster = self.work.roster
        return dealing_session(self.committee, run, self.header.round, roster, self.order)

    @property
    def attempt(self) -> bytes:
        """Name of the attempt: of its links, keys and masks, which serve no other one."""
        number = hashlib.sha256(b"attempt %d" % self.work.attempt).digest()
        return self.committee.session(self.pledges.run, self.header.round, number)

    def computing(self, admitted: Admitted) -> bytes:
        """Name of the attempt at computing on these inputs."""
        return self.committee.session(
            self.pledges.run, self.header.round, self.attempt, admitted.digest
        )

    @property
    def party(self) -> Party:
        """The member and its links."""
        return Party(self.index, self.identity, self.committee, self.attempt)

    @property
    def is_direct(self) -> bool:
        """Whether members reach each other without the server."""
        return is_direct(self.settings)

    @property
    def seating(self) -> str:
        """Name of the four members that sit in the round."""
        return self.committee.digest.hex()

    def pledge(self, more: Callable[[Pledge], Pledge]) -> None:
        """Promise something more in this attempt; raises ProtocolError if it was overtaken."""
        now = (self.work.attempt, self.header.round, self.seating)
        self.pledges.make(lambda pledge: more(pledge.during(*now)))

    def start(self) -> Member[Outcome]:
        """Play the part."""
        if self.work.task == TOSS:
            self.outcome.keys = yield from toss_keys(
                self.index, self.pledges.contribution, self.session, self._keep
            )
            return self.outcome
        if (keys := self.pledges.read().toss.keys) is None:
            raise ProtocolError(
                f"committee member {self.index} holds no component keys",
                cure="toss keys first; a node that lost its state needs a new run",
            )
        admitted = self.outcome.admitted = yield from admit(
            self.index,
            self.identity.agreement,
            self.session,
            self.work.roster,
            self.work.dealt,
            self._plan(len(self.work.clients)).words,
        )
        self.pledge(lambda pledge: pledge.opening(admitted.digest))
        opened = yield from aggregate(
            self.index,
            keys,
            self.computing(admitted),
            [self._plan(len(admitted.clients))],
            admitted.components,
            inputs=admitted.digest,
        )
        self.outcome.totals = opened[0].totals
        return self.outcome

    def _keep(self, committed: Mapping[int, bytes]) -> None:
        self.pledge(lambda pledge: pledge.revealing(committed))

    def _plan(self, clients: int) -> Plan:
        return committee_plan(self.settings, self.release, clients)


def new_job(asked: Work, header: Header, context: Context, settings: Settings) -> Job:
    """Make a member's job of what the server asks; raises ProtocolError if this node is none."""
    memory, store = NodeMemory(context.state), NodeStore.of(context, settings)
    return Job(
        settings,
        header,
        release_plan(settings, *memory.plan),
        member_identity(context, store),
        Pledges(store, memory.run),
        asked,
        memory.order,
    )


def begun_job(asked: Work, header: Header, context: Context, settings: Settings) -> Job:
    """Take on a task, once; raises ProtocolError if this node is no member, a seat is not proven,
    or the attempt or its inputs are not new.
    """
    memory = NodeMemory(context.state)
    seated(settings, memory, header.round, asked.seats)
    job = new_job(asked, header, context, settings)
    _check_attempt(asked, job.index, context.node_id)
    place, proven = Place.of(settings, memory.run, header.round), dict[int, DealingKey]()

    # On disk before anything is sent: whatever becomes of the attempt, it is not made again.
    def pledged(pledge: Pledge) -> Pledge:
        if asked.task == TOSS:
            return pledge.tossing(asked.attempt, header.round, job.seating)
        proven.update(proven_clients(asked.clients, place, pledge.pins))
        return pledge.computing(asked.attempt, header.round, job.seating).seeing(proven)

    job.pledges.make(pledged)
    # Who is not proven has dealt nothing: all members see it alike, and go on without it.
    dealt = {number: parts for number, parts in asked.dealt.items() if number in proven}
    job.work = replace(asked, dealt=dealt)
    put_away(job, context)
    return job


def _check_attempt(asked: Work, index: int, node: int) -> None:
    """Refuse an attempt in which this member's seat is elsewhere, or which a member has had."""
    if asked.seats[index].node != node:
        raise ProtocolError(
            f"this member's seat is at node {asked.seats[index].node}, and this is node {node}",
            cure="give each node keys of its own",
        )
    if (last := max(seat.attempt for seat in asked.seats)) >= asked.attempt:
        raise ProtocolError(
            f"attempt {asked.attempt} is not after a member's attempt {last}",
            cure="number attempts as the members say",
        )


@dataclass(frozen=True)
class _Begun:
    """A member's task as it is kept between two messages."""

    round: int
    work: Work


def put_away(job: Job, context: Context) -> None:
    """Store what the member is made from, before its first message leaves."""
    put(context.state, _Begun(job.header.round, job.work), WORK)


def stored_work(header: Header, context: Context) -> Work:
    """Return what :func:`put_away` stored in this round; raises ProtocolError if it did not."""
    begun = take(_Begun, context.state, WORK)
    if begun.round != header.round:
        raise ProtocolError("no task was begun in this round", cure="begin one")
    return begun.work


def seated(
    settings: Settings, memory: NodeMemory, round: int, seats: tuple[Seat, ...]
) -> Committee:
    """Return the committee that sits in a round, if its seats are proven and it is an agreed one;
    raises ProtocolError if they are not, or it is not.
    """
    members = check_seating(seats, Place.of(settings, memory.run, round))
    if settings.aggregation.committee:
        check_listed(settings, members)
    else:
        _pin_committee(memory.state, members)
    return committee_of(settings, members)


@dataclass(frozen=True)
class _Pinned:
    """The members with whom a run began that lists none."""

    members: tuple[MemberKeys, ...]


def _pin_committee(state: RecordDict, members: tuple[MemberKeys, ...]) -> None:
    """Accept a committee that no settings list: the same for a whole run. Raises ProtocolError if
    it is another one.
    """
    named = _Pinned(members)
    if _PINNED in state and take(_Pinned, state, _PINNED) != named:
        raise ProtocolError(
            "the server names another committee than earlier in this run",
            cure="list the members in aggregation.committee and start a new run",
        )
    put(state, named, _PINNED)
