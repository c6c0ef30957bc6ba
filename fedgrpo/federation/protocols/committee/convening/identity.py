"""A node as a committee member: where its keys come from, and what it says of itself."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from fedgrpo.federation.protocols.committee.convening.pledges import Pledge
from fedgrpo.federation.protocols.committee.convening.seats import Place, Seat
from fedgrpo.federation.state.node_store import NodeStore
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import Identity
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings

KEY_FILE = "committee-key"
"""Key of a node's own configuration: the file with a member's private keys, of mode 0600."""


def is_simulated(context: Context) -> bool:
    """Whether this node is one of a simulation."""
    return "partition-id" in context.node_config


def can_be_member(context: Context, settings: Settings) -> bool:
    """Whether this node has keys as a member: from its file, or because it is simulated.

    In a simulation without files, the four members are the first clients that attack nobody.
    """
    if KEY_FILE in context.node_config or not is_simulated(context):
        return KEY_FILE in context.node_config
    place = int(context.node_config["partition-id"]) - settings.simulation.byzantine
    return place in range(MEMBERS)


def member_identity(context: Context, store: NodeStore) -> Identity:
    """Return a node's keys as a member; a simulated one derives them from its own secret. Raises
    ProtocolError if the node has none, or they cannot be read.
    """
    if KEY_FILE in context.node_config:
        return Identity.read(Path(str(context.node_config[KEY_FILE])))
    if not is_simulated(context):
        raise ProtocolError(
            "this node has no keys as a committee member",
            cure=f"make some with 'fedgrpo committee-key FILE' and start it with {KEY_FILE}",
        )
    return Identity(store.derive("member signing"), store.derive("member agreement"))


def own_seat(identity: Identity, pledge: Pledge, place: Place, node: int) -> Seat:
    """Say what a member has promised, signed for one round."""
    begun = pledge.round == place.round
    seat = Seat(
        identity.public,
        node,
        attempt=pledge.attempt if begun else 0,
        ready=pledge.ready,
        seating=pledge.seating if begun else "",
    )
    return seat.signed(identity, place)
