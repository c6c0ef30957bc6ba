"""A committee member's part in a round, put away in the node's memory between two messages.

Adversary: a server, as the relay of sealed messages, that may send anything, any client, and one
malicious member. A member computes in a round under one seating, each seat of which its member has
signed, on one set of inputs only
(:mod:`fedgrpo.federation.protocols.committee.convening.pledges`), from clients whose keys their
nodes have signed; it says nothing in clear but what was opened.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from flwr.app import Context, RecordDict

from fedgrpo.federation.protocols.committee.convening.messages import (
    ABANDON,
    AGGREGATE,
    GO_ON,
    TOSS,
    Post,
    Progress,
    Work,
)
from fedgrpo.federation.protocols.committee.job import (
    WORK,
    Job,
    Outcome,
    begun_job,
    new_job,
    stored_work,
)
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.wire.codec import Header, decode, encode, put, take
from fedgrpo.ground.errors import MemberLostError, OpenedError, ProtocolError
from fedgrpo.secure.committee import ReplayableMember, connect, drive, listen, loss_behind
from fedgrpo.settings import Settings

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

LISTEN = "committee-listen"
"""Key of a node's own configuration: ``host:port`` at which a member is dialled, where that is not
the address that the settings list."""

_PATIENCE = 1 / 3
"""Share of the time for a message's reply that a direct member waits for the others to connect, and
then for each message of theirs: time is left to say who was lost."""

Relayed = ReplayableMember[Outcome]


def work(content: RecordDict, context: Context, settings: Settings) -> RecordDict:
    """Do what the server asks of a member, and answer with what to pass on. Raises ProtocolError if
    this node is no member, a seat is not proven, the node is asked twice for one thing, or a check
    fails before this member's part of the result is out.
    """
    memory = NodeMemory(context.state)
    header = Header(context.run_id, memory.round)
    asked = decode(Work, content)
    try:
        progress = _work(asked, header, context, settings)
    except OpenedError as error:
        LOG.error("%s", error.problem, extra={"code": "member-gave-up"})
        progress = Progress(done=False, gave_up=True, released=True)
    return encode(header, progress)


def _work(asked: Work, header: Header, context: Context, settings: Settings) -> Progress:
    if asked.task in (TOSS, AGGREGATE):
        job = begun_job(asked, header, context, settings)
        if job.is_direct:
            return _directly(job, context)
        member = _relayed(job)
        post = member.begin()
        _LIVE[_place(context)] = _Live(0, job, member)
        return _progress(job, member, post, context)
    live = _resume(header, context, settings)
    if asked.task == ABANDON:
        _forget(context)
        return _abandon(live.member, asked.lost)
    if asked.task != GO_ON:
        raise ProtocolError("unknown task of a member", cure="install the same version everywhere")
    return _hear(live, asked.post, context)


def _relayed(job: Job) -> Relayed:
    return ReplayableMember(job.party, job.start)


def _hear(live: _Live, post: Post, context: Context) -> Progress:
    """Take sealed messages in, and go on as far as they reach."""
    put(context.state, _Heard(post), f"{_HEARD}{live.heard:06}")
    live.heard += 1
    try:
        sent = live.member.deliver(post)
    except ProtocolError as error:
        _forget(context)
        raise live.member.abandon(error) from None
    return _progress(live.job, live.member, sent, context)


def _progress(job: Job, member: Relayed, post: Post, context: Context) -> Progress:
    if not member.done:
        return Progress(done=False, post=post)
    return _finish(job, member.result, context, post)


def _finish(job: Job, outcome: Outcome, context: Context, post: Post) -> Progress:
    """Keep the seating's keys, or hand out what was opened; the rest is forgotten."""
    _forget(context)
    if outcome.keys is not None:
        keys = outcome.keys
        job.pledge(lambda pledge: pledge.holding(keys))
        return Progress(done=True, post=post)
    assert outcome.admitted is not None
    return Progress(done=True, post=post, clients=outcome.admitted.clients, totals=outcome.totals)


def _abandon(member: Relayed, lost: int) -> Progress:
    """End, and say whether the round counts as released."""
    error = member.abandon(
        MemberLostError(lost, f"committee member {lost} is gone", cure="see its own log")
    )
    return Progress(done=True, released=isinstance(error, OpenedError))


def _directly(job: Job, context: Context) -> Progress:
    """Play the whole part over direct links, within one message of the server's."""
    address = str(context.node_config.get(LISTEN, job.committee.addresses[job.index]))
    patience = job.settings.federation.reply_timeout_s * _PATIENCE
    try:
        with listen(address) as port, connect(job.party, port, patience) as links:
            outcome = drive(job.start(), links)
    except Exception as error:
        _forget(context)
        if (loss := loss_behind(error)) is None:
            raise
        LOG.warning("%s", loss.problem, extra={"code": "member-lost"})
        released = loss.confirmed or isinstance(error, OpenedError)
        return Progress(done=False, lost=loss.member, released=released)
    return _finish(job, outcome, context, {})


# What a member keeps between two messages -------------------------------------------------------


_HEARD = f"{WORK}.heard."
"""What the names of the deliveries begin with."""


@dataclass(frozen=True)
class _Heard:
    """One delivery, as it is kept."""

    post: Post


@dataclass
class _Live:
    """A member in this process, and how many deliveries it has heard."""

    heard: int
    job: Job
    member: Relayed


_LIVE: dict[tuple[int, int], _Live] = {}
"""By run and node. Only spares work: whatever is here can be made again from the node's state."""


def _place(context: Context) -> tuple[int, int]:
    return context.run_id, context.node_id


def _forget(context: Context) -> None:
    """Wipe what this member kept for its task."""
    for name in [name for name in context.state if name.startswith(WORK)]:
        del context.state[name]
    _LIVE.pop(_place(context), None)


def _resume(header: Header, context: Context, settings: Settings) -> _Live:
    """Return the member at work: the one in this process, or one that hears everything again."""
    state = context.state
    begun = stored_work(header, context)
    heard = sorted(name for name in state if name.startswith(_HEARD))
    live = _LIVE.get(_place(context))
    if live is None or live.job.work.attempt != begun.attempt or live.heard > len(heard):
        live = _remake(new_job(begun, header, context, settings))
        _LIVE[_place(context)] = live
    for name in heard[live.heard :]:
        live.member.deliver(take(_Heard, state, name).post)
        live.heard += 1
    return live


def _remake(job: Job) -> _Live:
    if job.is_direct:  # The same masks would serve a second time.
        raise ProtocolError(
            "asked to go on with what was begun over direct links", cure="begin another attempt"
        )
    member = _relayed(job)
    member.begin()
    return _Live(0, job, member)
