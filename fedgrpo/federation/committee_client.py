"""A data holder's part in a round over the committee: public keys first, then shares.

Adversary: a server that may send anything. A node deals once a round, to the committee that the
settings name or, in a simulation, to the one that its run began with; and to no round of fewer
clients than the rule needs. A round that was interrupted is dealt again from the same release and
by the same key: to the same roster, the very same shares.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.errors import ProtocolError
from fedgrpo.federation.committee_identity import (
    Pledges,
    can_be_member,
    is_simulated,
    member_identity,
)
from fedgrpo.federation.committee_messages import (
    Dealer,
    Seat,
    read_deal,
    write_dealer,
    write_dealt,
)
from fedgrpo.federation.committee_plan import (
    committee_of,
    committee_plan,
    dealing_session,
    payload_of,
    pinned_members,
)
from fedgrpo.federation.memory import NodeMemory
from fedgrpo.federation.messages import Header, Tag
from fedgrpo.federation.node_store import Ask, NodeStore
from fedgrpo.federation.plans import release_plan
from fedgrpo.secure.committee import deal as split
from fedgrpo.settings import Settings


def finish(
    header: Header, context: Context, settings: Settings, ask: Ask, release: NDArray[float64]
) -> RecordDict:
    """Keep a round's release, and answer with public keys and a tag only."""
    store = NodeStore.of(context, settings)
    signing = Ed25519PrivateKey.from_private_bytes(store.derive("dealing", ask.plan))
    NodeMemory(context.state).keep_dealing(release, signing.private_bytes_raw())
    seat = None
    if can_be_member(context, settings):
        pledge = Pledges(store, ask.run).read()
        seat = Seat(member_identity(context, store).public, pledge.attempt, pledge.keys is not None)
    tag: Tag = store.tag(ask, release)
    return write_dealer(header, Dealer(signing.public_key().public_bytes_raw(), seat), tag)


def deal(content: RecordDict, context: Context, settings: Settings) -> RecordDict:
    """Share this round's release out to the members.

    Raises
    ------
    ProtocolError
        If the committee is not the agreed one, this node is not in the roster, or it has dealt.
    CohortError
        If there are too few clients for the rule.
    """
    memory, order, named = NodeMemory(context.state), read_deal(content), pinned_members(settings)
    if not (named or is_simulated(context)):
        raise ProtocolError(
            "the settings name no committee, and keys that the server hands out could be its own",
            cure="name four members in aggregation.committee",
        )
    memory.pin_committee(order.members, named)
    plan, committee = release_plan(settings, *memory.plan), committee_of(settings, order.members)
    key = memory.take_signing()
    own = Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    number = [number for number, signing in order.clients.items() if signing == own]
    if len(number) != 1:
        raise ProtocolError(
            f"this node is in the roster {len(number)} times",
            cure="pass on each node's key as it came",
        )
    committee_plan(settings, plan, len(order.clients))
    session = dealing_session(
        committee, memory.run, order.header.round, order.clients, memory.order
    )
    payload = payload_of(memory.take_release(), plan)
    return write_dealt(order.header, split(payload, committee, session, number[0], key))
