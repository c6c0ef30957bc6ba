"""A data holder's part in a round over the committee: public keys first, then shares.

Adversary: a server that may send anything. A node deals once a round, to the committee that the
settings name or, in a simulation, to the one that its run began with; and to no round of fewer
clients than the rule needs.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.errors import ProtocolError
from fedgrpo.federation.committee_identity import can_be_member, is_simulated, member_identity
from fedgrpo.federation.committee_messages import (
    Finisher,
    read_deal,
    write_dealt,
    write_finisher,
)
from fedgrpo.federation.committee_plan import (
    committee_of,
    committee_plan,
    dealing_session,
    is_direct,
    payload_of,
    pinned_members,
)
from fedgrpo.federation.memory import NodeMemory
from fedgrpo.federation.messages import Header
from fedgrpo.federation.plans import release_plan
from fedgrpo.secure.committee import deal as split
from fedgrpo.settings import Settings


def finish(header: Header, context: Context, release: NDArray[float64]) -> RecordDict:
    """Keep a round's release, and answer with public keys only."""
    signing = Ed25519PrivateKey.generate()
    NodeMemory(context.state).keep_dealing(release, signing.private_bytes_raw())
    member = member_identity(context).public if can_be_member(context) else None
    return write_finisher(header, Finisher(signing.public_key().public_bytes_raw(), member))


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
    signing = Ed25519PrivateKey.from_private_bytes(memory.take_signing())
    if order.clients.get(context.node_id) != signing.public_key().public_bytes_raw():
        raise ProtocolError(
            "this node is in the roster with another key, or not at all",
            cure="pass on each node's key as it came",
        )
    committee_plan(settings, plan, len(order.clients), direct=is_direct(committee))
    session = dealing_session(committee, order.header, order.clients)
    payload = payload_of(memory.take_release(), plan)
    key = signing.private_bytes_raw()
    return write_dealt(order.header, split(payload, committee, session, context.node_id, key))
