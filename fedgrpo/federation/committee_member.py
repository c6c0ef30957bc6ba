"""A committee member's part in a round, put away in the node's memory between two messages.

Adversary: a server, as the relay of sealed messages, that may send anything, and one malicious
member. A member computes in a round on one set of inputs only
(:mod:`fedgrpo.federation.committee_identity`), with four members, and with three where the settings
allow it and one of the four was lost; it says nothing in clear but what was opened.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict

from fedgrpo.errors import MemberLostError, OpenedError, ProtocolError
from fedgrpo.federation.committee_identity import KEY_FILE, Pledge, Pledges, member_identity
from fedgrpo.federation.committee_messages import (
    ABANDON,
    AGGREGATE,
    GO_ON,
    NOBODY,
    TOSS,
    Post,
    Progress,
    Work,
    read_post,
    read_work,
    write_post,
    write_progress,
    write_work,
)
from fedgrpo.federation.committee_plan import (
    committee_of,
    committee_plan,
    dealing_session,
    is_direct,
    pinned_members,
)
from fedgrpo.federation.memory import WORK, NodeMemory
from fedgrpo.federation.messages import Header
from fedgrpo.federation.node_store import NodeStore
from fedgrpo.federation.plans import release_plan
from fedgrpo.federation.records import config_record, scalar, values
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.secure.committee import (
    Admitted,
    Committee,
    ComponentKeys,
    Identity,
    Member,
    Party,
    Plan,
    ReplayableMember,
    admit,
    aggregate,
    connect,
    drive,
    listen,
    loss_behind,
    still_agreed,
    toss_keys,
)
from fedgrpo.secure.committee.identity import holders
from fedgrpo.secure.committee.planes import Words
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

LISTEN = "committee-listen"
"""Key of a node's own configuration: ``host:port`` at which a member is dialled, where that is not
the address that the settings name."""

_PATIENCE = 1 / 3
"""Share of the time for a message's reply that a direct member waits for the others to connect, and
then for each message of theirs: time is left to say who was lost."""

Relayed = ReplayableMember["_Outcome"]


@dataclass
class _Outcome:
    """What a member's generator has come to."""

    keys: ComponentKeys | None = None
    admitted: Admitted | None = None
    totals: Words | None = None


@dataclass
class _Job:
    """One member's task in one round: enough to make its generator again in another process."""

    settings: Settings
    header: Header
    release: ReleasePlan
    identity: Identity
    pledges: Pledges
    work: Work
    secret: bytes = field(repr=False)
    outcome: _Outcome = field(default_factory=_Outcome)

    @property
    def committee(self) -> Committee:
        return committee_of(self.settings, self.work.members)

    @property
    def index(self) -> int:
        """The member's number; raises ProtocolError if this node is none."""
        if self.identity.public not in self.work.members:
            raise ProtocolError(
                "this node's keys as a committee member are none of the committee's",
                cure=f"start it with the {KEY_FILE} whose public keys aggregation.committee names",
            )
        return self.work.members.index(self.identity.public)

    @property
    def present(self) -> frozenset[int]:
        return frozenset(range(MEMBERS)) - {self.work.lost}

    @property
    def session(self) -> bytes:
        """Name of the toss, or of the dealing."""
        if self.work.task == TOSS:
            return self.attempt
        run = self.pledges.run
        return dealing_session(self.committee, run, self.header.round, self.work.clients)

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
        return Party(self.index, self.identity, self.committee, self.attempt, self.present)

    def start(self, secret: bytes) -> Member[_Outcome]:
        """Play the part."""
        if self.work.task == TOSS:
            self.outcome.keys = yield from toss_keys(self.index, secret, self.session)
            return self.outcome
        if (keys := self.pledges.read().keys) is None:
            raise ProtocolError(
                f"committee member {self.index} holds no component keys",
                cure="toss keys first; a node that lost its state needs a new run",
            )
        before = self.outcome.admitted
        if self.work.lost != NOBODY and not (
            yield from still_agreed(self.index, self.present, before)
        ):
            self.outcome.admitted = None
        if self.outcome.admitted is None:
            self.outcome.admitted = yield from admit(
                self.index,
                self.identity.agreement,
                self.session,
                self.work.clients,
                self.work.dealt,
                self._plan(len(self.work.clients)).words,
                self.present,
            )
        admitted = self.outcome.admitted
        self.pledges.make(lambda pledge: pledge.opening(admitted.digest))
        opened = yield from aggregate(
            self.index,
            keys,
            self.computing(admitted),
            [self._plan(len(admitted.clients))],
            admitted.components,
            None if self.work.lost == NOBODY else self.work.lost,
            inputs=admitted.digest,
        )
        self.outcome.totals = opened[0].totals
        return self.outcome

    def _plan(self, clients: int) -> Plan:
        direct = is_direct(self.committee)
        return committee_plan(self.settings, self.release, clients, direct=direct)


def work(content: RecordDict, context: Context, settings: Settings) -> RecordDict:
    """Do what the server asks of a member, and answer with what to pass on.

    Raises
    ------
    ProtocolError
        If this node is no member, or is asked twice for one thing; and where a check fails.
    OpenedError
        If something fails when this member's part of the result is out.
    """
    memory = NodeMemory(context.state)
    header = Header(context.run_id, memory.round)
    asked = read_work(content)
    if asked.task in (TOSS, AGGREGATE):
        job = _begin(asked, header, context, settings)
        if is_direct(job.committee):
            return write_progress(header, _directly(job, context))
        member = _relayed(job)
        post = member.begin()
        _LIVE[_place(context)] = _Live(job.secret, 0, job, member)
        return write_progress(header, _progress(job, member, post, context))
    live = _resume(header, context, settings)
    if asked.task == ABANDON:
        _forget(context)
        return write_progress(header, _abandon(live.member, asked.lost))
    if asked.task != GO_ON:
        raise ProtocolError("unknown task of a member", cure="install the same version everywhere")
    return write_progress(header, _hear(live, asked.post, context))


def _begin(asked: Work, header: Header, context: Context, settings: Settings) -> _Job:
    """Take on a task, once."""
    memory = NodeMemory(context.state)
    memory.pin_committee(asked.members, pinned_members(settings))
    job = _job(asked, header, context, settings)
    if asked.lost != NOBODY:
        first = _first_attempt(asked.lost, header, context, settings)
        job.work = replace(asked, clients=first.work.clients, dealt=first.work.dealt)
        job.outcome.admitted = first.outcome.admitted

    # On disk before anything is sent: whatever becomes of the attempt, it is not made again.
    def pledged(pledge: Pledge) -> Pledge:
        if asked.task == TOSS:
            return pledge.tossing(asked.attempt)
        return pledge.computing(asked.attempt, header.round)

    job.pledges.make(pledged)
    _put_away(job, context)
    return job


def _job(asked: Work, header: Header, context: Context, settings: Settings) -> _Job:
    memory, store = NodeMemory(context.state), NodeStore.of(context, settings)
    # Bound to the attempt: a malicious member that has seen what others gave to one toss would
    # choose the keys if they gave the same again.
    secret = store.derive("member", memory.run, asked.attempt)
    return _Job(
        settings,
        header,
        release_plan(settings, *memory.plan),
        member_identity(context, store),
        Pledges(store, memory.run),
        asked,
        secret,
    )


def _first_attempt(lost: int, header: Header, context: Context, settings: Settings) -> _Job:
    """The attempt with four members, as far as it got; it goes no further."""
    if not settings.aggregation.allow_three:
        raise ProtocolError(
            f"asked to go on without committee member {lost}",
            cure="set aggregation.allow_three = true to let three honest members finish a round",
        )
    job = _lost_directly(lost, header, context, settings)
    if job is None:
        job = _resume(header, context, settings).job
    if job.work.lost != NOBODY:
        raise ProtocolError(
            f"asked to go on without committee member {lost} after member {job.work.lost}",
            cure="go on with the next round",
        )
    _forget(context)
    return job


def _lost_directly(lost: int, header: Header, context: Context, settings: Settings) -> _Job | None:
    """A direct attempt that ended because this very member was lost on this member's own link."""
    job = _stored_job(header, context, settings)
    if not is_direct(job.committee):
        return None
    if scalar(config_record(context.state, WORK), "lost", int) != lost:
        raise ProtocolError(
            f"asked to go on without committee member {lost}, which this member has not lost",
            cure="go on with the next round",
        )
    return job


def _relayed(job: _Job) -> Relayed:
    return ReplayableMember(job.party, job.start, job.secret)


def _hear(live: _Live, post: Post, context: Context) -> Progress:
    """Take sealed messages in, and go on as far as they reach."""
    record = config_record(context.state, WORK)
    record[f"heard.{live.heard:06}"] = write_post(post)
    live.heard += 1
    try:
        sent = live.member.deliver(post)
    except ProtocolError as error:
        _forget(context)
        raise live.member.abandon(error) from None
    return _progress(live.job, live.member, sent, context)


def _progress(job: _Job, member: Relayed, post: Post, context: Context) -> Progress:
    if not member.done:
        return Progress(done=False, post=post)
    return _finish(job, member.result, context, post)


def _finish(job: _Job, outcome: _Outcome, context: Context, post: Post) -> Progress:
    """Keep the run's keys, or hand out what was opened; the rest is forgotten."""
    _forget(context)
    if outcome.keys is not None:
        tossed = job.work.attempt
        job.pledges.make(lambda pledge: replace(pledge, keys=outcome.keys, tossed=tossed))
        return Progress(done=True, post=post)
    assert outcome.admitted is not None
    return Progress(done=True, post=post, clients=outcome.admitted.clients, totals=outcome.totals)


def _abandon(member: Relayed, lost: int) -> Progress:
    """End, and say whether the round counts as released."""
    error = member.abandon(
        MemberLostError(lost, f"committee member {lost} is gone", cure="see its own log")
    )
    return Progress(done=True, released=isinstance(error, OpenedError))


def _directly(job: _Job, context: Context) -> Progress:
    """Play the whole part over direct links, within one message of the server's.

    What was admitted is kept only where another member was lost: one that has seen a check fail
    goes on with nobody.
    """
    address = str(context.node_config.get(LISTEN, job.committee.addresses[job.index]))
    patience = job.settings.federation.reply_timeout_s * _PATIENCE
    try:
        with listen(address) as port, connect(job.party, port, patience) as links:
            outcome = drive(job.start(job.secret), links)
    except Exception as error:
        _forget(context)
        if (loss := loss_behind(error)) is None:
            raise
        LOG.warning("%s", loss.problem)
        if job.settings.aggregation.allow_three:
            _put_away(job, context, loss.member)
        released = loss.confirmed or isinstance(error, OpenedError)
        return Progress(done=False, lost=loss.member, released=released)
    return _finish(job, outcome, context, {})


# What a member keeps between two messages -------------------------------------------------------


@dataclass
class _Live:
    """A member in this process, and how many deliveries it has heard."""

    token: bytes
    heard: int
    job: _Job
    member: Relayed


_LIVE: dict[tuple[int, int], _Live] = {}
"""By run and node. Only spares work: whatever is here can be made again from the node's state."""


def _place(context: Context) -> tuple[int, int]:
    return context.run_id, context.node_id


def _put_away(job: _Job, context: Context, lost: int = NOBODY) -> None:
    """Store what the member is made from: before its first message leaves, and when another one was
    lost on a direct link.
    """
    work, admitted = job.work, job.outcome.admitted
    record = ConfigRecord({"round": job.header.round, "secret": job.secret, "lost": lost})
    if admitted is not None:
        record["admitted"] = list(admitted.clients)
        record["dropped"] = list(admitted.dropped)
        record["digest"] = admitted.digest
        for m, words in admitted.components.items():
            record[f"component.{m}"] = words.astype("<u8").tobytes()
    context.state[WORK] = record
    for name, part in write_work(job.header, work).items():
        context.state[f"{WORK}.{name}"] = part


def _forget(context: Context) -> None:
    """Wipe what this member kept for its task."""
    for name in [name for name in context.state if name.startswith(WORK)]:
        del context.state[name]
    _LIVE.pop(_place(context), None)


def _resume(header: Header, context: Context, settings: Settings) -> _Live:
    """Return the member at work: the one in this process, or one that hears everything again."""
    state = context.state
    record = config_record(state, WORK)
    secret = scalar(record, "secret", bytes)
    heard = sorted(name for name in record if name.startswith("heard."))
    live = _LIVE.get(_place(context))
    if live is None or live.token != secret or live.heard > len(heard):
        live = _remake(_stored_job(header, context, settings))
        _LIVE[_place(context)] = live
    for name in heard[live.heard :]:
        live.member.deliver(read_post(scalar(record, name, bytes)))
        live.heard += 1
    return live


def _remake(job: _Job) -> _Live:
    if is_direct(job.committee):  # The same masks would serve a second time.
        raise ProtocolError(
            "asked to go on with what was begun over direct links", cure="begin another attempt"
        )
    member = _relayed(job)
    member.begin()
    return _Live(job.secret, 0, job, member)


def _stored_job(header: Header, context: Context, settings: Settings) -> _Job:
    state = context.state
    record = config_record(state, WORK)
    if scalar(record, "round", int) != header.round:
        raise ProtocolError("no task was begun in this round", cure="begin one")
    stored = RecordDict(
        {
            name.removeprefix(f"{WORK}."): part
            for name, part in state.items()
            if name.startswith(f"{WORK}.")
        }
    )
    job = _job(read_work(stored), header, context, settings)
    job.outcome.admitted = _stored_admitted(job, record)
    return job


def _stored_admitted(job: _Job, record: ConfigRecord) -> Admitted | None:
    if "admitted" not in record:
        return None
    clients = tuple(values(record, "admitted", int))
    components = {
        m: np.frombuffer(scalar(record, f"component.{m}", bytes), "<u8")
        .astype(np.uint64)
        .reshape(len(clients), -1)
        for m in holders(job.index)
    }
    dropped, digest = tuple(values(record, "dropped", int)), scalar(record, "digest", bytes)
    return Admitted(clients, dropped, digest, components)
