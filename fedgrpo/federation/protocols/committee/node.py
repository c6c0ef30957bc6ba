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
from dataclasses import dataclass

from flwr.app import Context, RecordDict
from numpy import float64
from numpy.typing import NDArray

from fedgrpo.federation.protocols.base import Answering, NodeSide
from fedgrpo.federation.protocols.committee.convening.identity import (
    can_be_member,
    is_simulated,
    member_identity,
    own_seat,
)
from fedgrpo.federation.protocols.committee.convening.messages import (
    Dealer,
    DealOrder,
    Dealt,
    roster_of,
)
from fedgrpo.federation.protocols.committee.convening.plan import (
    committee_plan,
    dealing_session,
    payload_of,
    write_keys,
)
from fedgrpo.federation.protocols.committee.convening.pledges import Pledges
from fedgrpo.federation.protocols.committee.convening.seats import (
    DealingKey,
    Place,
    public_signing_key,
)
from fedgrpo.federation.protocols.committee.cosigning import vouch
from fedgrpo.federation.protocols.committee.job import seated
from fedgrpo.federation.protocols.committee.member import work
from fedgrpo.federation.state.memory import ROUND, NodeMemory
from fedgrpo.federation.state.node_store import NodeStore
from fedgrpo.federation.wire.codec import Header, decode, drop, encode, put, take
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.codec import Key
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.secure.committee import deal as split
from fedgrpo.settings import Settings
from fedgrpo.site import fingerprint

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""


_SIGNING = f"{ROUND}signing"


@dataclass(frozen=True)
class _Signing:
    """The private key that signs how the round's release is dealt."""

    key: Key


class Node(NodeSide):
    """Keeps the release until the members are known, and may be one of them."""

    def __init__(self) -> None:
        self.handlers = {"deal": deal, "committee": work, "cosign": vouch}

    def answer(self, task: Answering, release: NDArray[float64]) -> RecordDict:
        """Answer with public keys and a tag only."""
        store, context, ask = task.store, task.context, task.ask
        place, node = Place.of(task.settings, ask.run, task.header.round), context.node_id
        signing, own = store.derive("dealing", ask.plan), store.derive("node signing", ask.run)
        task.memory.keep_release(release)
        put(context.state, _Signing(signing), _SIGNING)
        seat = None
        if can_be_member(context, task.settings):
            pledge = Pledges(store, ask.run).read()
            seat = own_seat(member_identity(context, store), pledge, place, node)
        dealer = Dealer(DealingKey.make(signing, own, node, place), seat)
        return encode(task.header, dealer, store.tag(ask, release))


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
    memory, order = NodeMemory(context.state), decode(DealOrder, content)
    if not (settings.aggregation.committee or is_simulated(context)):
        raise ProtocolError(
            "the settings name no committee, and keys that the server hands out could be its own",
            cure="name four members or more in aggregation.committee",
        )
    round_, clients = memory.round, roster_of(order.clients)
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
    header = Header(context.run_id, round_)
    return encode(header, Dealt(split(payload, committee, session, number, key)))


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


def _take_signing(state: RecordDict) -> bytes:
    """Return the round's signing key, once; raises ProtocolError if there is none."""
    key = take(_Signing, state, _SIGNING).key
    drop(state, _SIGNING)
    return key
