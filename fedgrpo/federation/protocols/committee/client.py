"""A data holder's part in a round over the committee: public keys first, then shares.

Adversary: a server that may send anything, and clients that pose as members. A node deals once a
round, to four of the members that the settings list, each of whom has signed its seat, or, in a
simulation, to the four that its run began with; and to no round of fewer clients than the rule
needs. A round that was interrupted is dealt again from the same release, by the same key and to the
same four: to the same roster, the very same shares.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import ConfigRecord, Context, RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.committee.identity import (
    can_be_member,
    is_simulated,
    member_identity,
    own_seat,
)
from fedgrpo.federation.protocols.committee.messages import (
    Dealer,
    read_deal,
    roster_of,
    write_dealer,
    write_dealt,
)
from fedgrpo.federation.protocols.committee.plan import (
    check_listed,
    committee_of,
    committee_plan,
    dealing_session,
    payload_of,
    write_keys,
)
from fedgrpo.federation.protocols.committee.pledges import Pledges
from fedgrpo.federation.protocols.committee.seats import (
    DealingKey,
    Place,
    Seat,
    check_seating,
    public_signing_key,
)
from fedgrpo.federation.state.memory import ROUND, NodeMemory
from fedgrpo.federation.state.node_store import Ask, NodeStore
from fedgrpo.federation.wire.messages import Header, Tag
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.federation.wire.records import config_record, scalar
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import Committee, MemberKeys
from fedgrpo.secure.committee import deal as split
from fedgrpo.settings import Settings
from fedgrpo.site import fingerprint

_SIGNING, _PINNED = f"{ROUND}signing", "fedgrpo.committee"

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""


def finish(
    header: Header, context: Context, settings: Settings, ask: Ask, release: NDArray[float64]
) -> RecordDict:
    """Keep a round's release, and answer with public keys and a tag only."""
    store = NodeStore.of(context, settings)
    place, node = Place.of(settings, ask.run, header.round), context.node_id
    signing, own = store.derive("dealing", ask.plan), store.derive("node signing", ask.run)
    NodeMemory(context.state).keep_release(release)
    _keep_signing(context.state, signing)
    key = DealingKey.make(signing, own, node, place)
    seat = None
    if can_be_member(context, settings):
        pledge = Pledges(store, ask.run).read()
        seat = own_seat(member_identity(context, store), pledge, place, node)
    tag: Tag = store.tag(ask, release)
    return write_dealer(header, Dealer(key, seat), tag)


def deal(content: RecordDict, context: Context, settings: Settings) -> RecordDict:
    """Share this round's release out to the members.

    Raises
    ------
    ProtocolError
        If a seat is not proven, the members are not of the agreed committee, the round was dealt to
        others before, this node is not in the roster, or it has dealt.
    CohortError
        If there are too few clients for the rule.
    """
    memory, order = NodeMemory(context.state), read_deal(content)
    if not (settings.aggregation.committee or is_simulated(context)):
        raise ProtocolError(
            "the settings name no committee, and keys that the server hands out could be its own",
            cure="name four members or more in aggregation.committee",
        )
    round_, clients = order.header.round, roster_of(order.clients)
    committee = seated(settings, memory, round_, order.seats)
    plan, key = release_plan(settings, *memory.plan), _take_signing(context.state)
    number = _number_in(clients, key)
    committee_plan(settings, plan, len(clients))
    seating = committee.digest.hex()
    # On disk before anything leaves: no other four are dealt this release, whatever happens.
    Pledges(NodeStore.of(context, settings), memory.run).make(
        lambda pledge: pledge.sitting(round_, seating)
    )
    LOG.info("round %d is dealt to %s", round_, ", ".join(map(shown, committee.members)))
    session = dealing_session(committee, memory.run, round_, clients, memory.order)
    payload = payload_of(memory.take_release(), plan)
    return write_dealt(order.header, split(payload, committee, session, number, key))


def seated(
    settings: Settings, memory: NodeMemory, round: int, seats: tuple[Seat, ...]
) -> Committee:
    """Return the committee that sits in a round, if its seats are proven and it is an agreed one.

    Raises
    ------
    ProtocolError
        If they are not, or it is not.
    """
    members = check_seating(seats, Place.of(settings, memory.run, round))
    if settings.aggregation.committee:
        check_listed(settings, members)
    else:
        _pin_committee(memory.state, members)
    return committee_of(settings, members)


def _number_in(clients: Mapping[int, bytes], private: bytes) -> int:
    own = public_signing_key(private)
    numbers = [number for number, key in clients.items() if key == own]
    if len(numbers) != 1:
        raise ProtocolError(
            f"this node is in the roster {len(numbers)} times",
            cure="pass on each node's key as it came",
        )
    return numbers[0]


def shown(keys: MemberKeys) -> str:
    """Name a member by the fingerprint that policies name it by."""
    return fingerprint(write_keys(keys).hex())


# What is kept between two messages ---------------------------------------------------------------


def _keep_signing(state: RecordDict, signing: bytes) -> None:
    """Keep the private key that signs how the round's release is dealt, 32 bytes."""
    state[_SIGNING] = ConfigRecord({"key": signing})


def _take_signing(state: RecordDict) -> bytes:
    """Return the round's signing key, once; raises ProtocolError if there is none."""
    key = scalar(config_record(state, _SIGNING), "key", bytes)
    del state[_SIGNING]
    return key


def _pin_committee(state: RecordDict, members: tuple[MemberKeys, ...]) -> None:
    """Accept a committee that no settings list: the same for a whole run.

    Raises
    ------
    ProtocolError
        If it is another one.
    """
    keys = before = b"".join(key.signing + key.agreement for key in members)
    if _PINNED in state:
        before = scalar(config_record(state, _PINNED), "keys", bytes)
    if before != keys:
        raise ProtocolError(
            "the server names another committee than earlier in this run",
            cure="list the members in aggregation.committee and start a new run",
        )
    state[_PINNED] = ConfigRecord({"keys": keys})
