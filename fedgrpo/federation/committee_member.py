"""A committee member's part in a round, put away in the node's memory between two messages.

Adversary: a server, as the relay of sealed messages, that may send anything, and one malicious
member. A member plays each round once, with four members, and once more with three where the
settings allow it; it says nothing in clear but what was opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict

from fedgrpo.errors import MemberLostError, OpenedError, ProtocolError
from fedgrpo.federation.committee_identity import member_identity
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
    computing_session,
    dealing_session,
    is_direct,
    pinned_members,
)
from fedgrpo.federation.memory import WORK, NodeMemory
from fedgrpo.federation.messages import Header
from fedgrpo.federation.plans import release_plan
from fedgrpo.federation.records import config_record, pairs, scalar, values
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
    toss_keys,
)
from fedgrpo.secure.committee.identity import holders
from fedgrpo.secure.committee.planes import Words
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.secure.primitives import SECRET_BYTES
from fedgrpo.settings import Settings

LISTEN = "committee-listen"
"""Key of a node's own configuration: ``host:port`` at which a member is dialled, where that is not
the address that the settings name."""

Relayed = ReplayableMember["_Outcome"]

_KEYS, _BEGUN = "fedgrpo.component-keys", "fedgrpo.begun"


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
    keys: ComponentKeys | None
    work: Work
    secret: bytes = field(repr=False)
    outcome: _Outcome = field(default_factory=_Outcome)

    @property
    def committee(self) -> Committee:
        return committee_of(self.settings, self.work.members)

    @property
    def index(self) -> int:
        """The member's number."""
        return self.work.members.index(self.identity.public)

    @property
    def present(self) -> frozenset[int]:
        return frozenset(range(MEMBERS)) - {self.work.lost}

    @property
    def session(self) -> bytes:
        """Name of the toss, or of the dealing."""
        if self.work.task == TOSS:
            return self.committee.session(self.header.run_id, self.header.round)
        return dealing_session(self.committee, self.header, self.work.clients)

    @property
    def party(self) -> Party:
        """The member and its links, which are other ones in a second attempt."""
        attempt = b"%32d" % self.work.lost
        links = self.committee.session(
            self.header.run_id, self.header.round, self.session, self.work.task.encode(), attempt
        )
        return Party(self.index, self.identity, self.committee, links, self.present)

    def start(self, secret: bytes) -> Member[_Outcome]:
        """Play the part."""
        if self.work.task == TOSS:
            self.outcome.keys = yield from toss_keys(self.index, secret, self.session)
            return self.outcome
        if self.keys is None:
            raise ProtocolError(
                f"committee member {self.index} holds no component keys",
                cure="toss keys first; a node that lost its state needs a new run",
            )
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
        clients = self.outcome.admitted.clients
        opened = yield from aggregate(
            self.index,
            self.keys,
            computing_session(self.committee, self.header, self.session, clients),
            [self._plan(len(clients))],
            self.outcome.admitted.components,
            None if self.work.lost == NOBODY else self.work.lost,
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
    memory, state = NodeMemory(context.state), context.state
    identity = member_identity(context)
    memory.pin_committee(asked.members, pinned_members(settings))
    done = _begun(state, header)
    attempt = f"{asked.task} without {asked.lost}" if asked.lost != NOBODY else asked.task
    if asked.lost != NOBODY and not (settings.aggregation.allow_three and AGGREGATE in done):
        raise ProtocolError(
            f"asked to go on without committee member {asked.lost}",
            cure="set aggregation.allow_three = true to let three honest members finish a round",
        )
    if attempt in done or (asked.lost != NOBODY and any(" without " in name for name in done)):
        raise ProtocolError(
            f"asked twice for {attempt!r} in round {header.round}",
            cure="a member takes part in a round once",
        )
    first = _first_attempt(header, context, settings) if asked.lost != NOBODY else None
    job = _Job(
        settings,
        header,
        release_plan(settings, *memory.plan),
        identity,
        _stored_keys(state),
        asked,
        os.urandom(SECRET_BYTES),
    )
    if first is not None:
        job.work = Work(AGGREGATE, asked.members, first.work.clients, first.work.dealt, asked.lost)
        job.outcome.admitted = first.outcome.admitted
    # Recorded before anything is sent: whatever becomes of the attempt, it is not made again.
    state[_BEGUN] = ConfigRecord({"round": header.round, "attempts": [*done, attempt]})
    _put_away(job, context)
    return job


def _begun(state: RecordDict, header: Header) -> list[str]:
    """Attempts that this member made in this round."""
    record = state.get(_BEGUN)
    if not isinstance(record, ConfigRecord) or record["round"] != header.round:
        return []
    return [str(name) for name in record["attempts"]]  # type: ignore[union-attr]


def _first_attempt(header: Header, context: Context, settings: Settings) -> _Job:
    """The attempt with four members, as far as it got; it goes no further."""
    job = _resume(header, context, settings).job
    _forget(context)
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
        keys = outcome.keys.keys
        context.state[_KEYS] = ConfigRecord({"of": list(keys), "keys": list(keys.values())})
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
    """Play the whole part over direct links, within one message of the server's."""
    address = str(context.node_config.get(LISTEN, job.committee.addresses[job.index]))
    timeout = job.settings.federation.reply_timeout_s
    try:
        with listen(address) as port, connect(job.party, port, timeout) as links:
            outcome = drive(job.start(job.secret), links)
    except MemberLostError as error:
        return Progress(done=False, lost=error.member)
    return _finish(job, outcome, context, {})


def _stored_keys(state: RecordDict) -> ComponentKeys | None:
    if _KEYS not in state:
        return None
    return ComponentKeys(pairs(config_record(state, _KEYS), "of", "keys", bytes))


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


def _put_away(job: _Job, context: Context) -> None:
    """Store what the member is made from, before its first message leaves."""
    work, admitted = job.work, job.outcome.admitted
    record = ConfigRecord({"round": job.header.round, "secret": job.secret})
    if admitted is not None:
        record["admitted"] = list(admitted.clients)
        record["dropped"] = list(admitted.dropped)
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
    if scalar(record, "round", int) != header.round:
        raise ProtocolError("no task was begun in this round", cure="begin one")
    secret = scalar(record, "secret", bytes)
    heard = sorted(name for name in record if name.startswith("heard."))
    live = _LIVE.get(_place(context))
    if live is None or live.token != secret or live.heard > len(heard):
        live = _remake(header, context, settings, secret)
        _LIVE[_place(context)] = live
    for name in heard[live.heard :]:
        live.member.deliver(read_post(scalar(record, name, bytes)))
        live.heard += 1
    return live


def _remake(header: Header, context: Context, settings: Settings, secret: bytes) -> _Live:
    state = context.state
    stored = RecordDict(
        {
            name.removeprefix(f"{WORK}."): part
            for name, part in state.items()
            if name.startswith(f"{WORK}.")
        }
    )
    job = _Job(
        settings,
        header,
        release_plan(settings, *NodeMemory(state).plan),
        member_identity(context),
        _stored_keys(state),
        read_work(stored),
        secret,
    )
    job.outcome.admitted = _stored_admitted(job, config_record(state, WORK))
    member = _relayed(job)
    member.begin()
    return _Live(secret, 0, job, member)


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
    return Admitted(clients, tuple(values(record, "dropped", int)), components)
