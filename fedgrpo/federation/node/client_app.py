"""The data holder's side: a Flower ClientApp with one handler for each message of a round.

Adversary: a server that may send anything. What a node never does, whatever it is asked: release
twice for one round, release under a plan other than the settings', release into a roster below its
own minimum, release unmasked unless its site allows it, let anything but a fixed code leave in the
place of an answer, or go beyond its site's policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedgrpo.federation.node.answers import Handler, answering
from fedgrpo.federation.node.clock import Clock, SystemClock
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.wire.codec import Header, check_header, decode, encode
from fedgrpo.federation.wire.messages import Ciphertexts, Masked, UnmaskOrder
from fedgrpo.secure import encoding
from fedgrpo.secure.roster import Roster
from fedgrpo.settings import Settings
from fedgrpo.site.node_folder import check_free, node_folder

if TYPE_CHECKING:
    # Loaded by the train handler only: a deployed node starts a process for every message.
    from fedgrpo.federation.interfaces import ClientFactory

MINIMUM_BUCKET = 3
"""Least bucket that a node accepts unless told otherwise: of a sum of two, each knows a half."""


def make_client_app(
    client_factory: ClientFactory | None = None,
    *,
    minimum_bucket: int = MINIMUM_BUCKET,
    clock: Clock | None = None,
) -> ClientApp:
    """Build the ClientApp of a data holder.

    Parameters
    ----------
    client_factory:
        ``(settings, node_config) -> Client``. None takes
        :class:`fedgrpo.federation.node.local_clients.LocalClients`, which train on this node's
        prompts.
    minimum_bucket:
        Least number of clients among which this one's update may be hidden. The run's
        ``secure.bucket_size`` counts too, whichever is larger.
    clock:
        By which answers leave; None takes the machine's own.

    Returns
    -------
    ClientApp
        Answers ``train``; ``query.share``, ``query.mask`` and ``query.unmask`` in buckets; and
        ``query.deal``, ``query.committee`` and ``query.cosign`` over a committee.
    """
    app = ClientApp()

    def train(message: Message, context: Context) -> RecordDict:
        from fedgrpo.federation.node import training
        from fedgrpo.federation.node.local_clients import LocalClients

        factory = client_factory or LocalClients()
        node = training.Node(factory, minimum_bucket, clock or SystemClock())
        return training.train(message, context, node)

    app.train()(answering(train))
    later = {
        "share": _share,
        "mask": _mask,
        "unmask": _unmask,
        "deal": _deal,
        "committee": _committee,
        "cosign": _cosign,
    }
    for name, handler in later.items():
        app.query(name)(answering(_later(handler)))
    return app


def _later(handler: Handler) -> Handler:
    """Refuse a later message of a round while a release is being made: as if nothing were computed,
    whatever is.

    Adversary: a server that would learn how long computing took by asking until it succeeds.
    """

    def checked(message: Message, context: Context) -> RecordDict:
        check_free(node_folder(context.node_config, Settings.from_run_config(context.run_config)))
        return handler(message, context)

    return checked


def _share(message: Message, context: Context) -> RecordDict:
    """Deal encrypted shares of this round's secrets to the bucket peers."""
    memory, header, _ = _open_round(message, context)
    roster = decode(Roster, message.content)
    with memory.masks() as client:
        ciphertexts = client.share(roster)
    memory.members = len(roster.members)
    return encode(header, Ciphertexts(ciphertexts))


def _mask(message: Message, context: Context) -> RecordDict:
    """Send the release under masks, in an encoding that the server has no say in."""
    memory, header, _ = _open_round(message, context)
    ciphertexts = decode(Ciphertexts, message.content).by_node
    with memory.masks() as client:
        release, bound = memory.take_release(), memory.bound
        values = encoding.encode(release, encoding.fraction_bits(memory.members, bound), bound)
        masked = client.mask(ciphertexts, values)
    return encode(header, Masked(masked))


def _unmask(message: Message, context: Context) -> RecordDict:
    """Answer once with shares of survivors' seeds or of dropped members' keys."""
    memory, header, _ = _open_round(message, context)
    order = decode(UnmaskOrder, message.content)
    with memory.masks() as client:
        revealed = client.reveal(
            header.run_id, header.round, order.bucket, order.survivors, order.dropped
        )
    return encode(header, revealed)


def _deal(message: Message, context: Context) -> RecordDict:
    """Share the release out to the committee."""
    from fedgrpo.federation.protocols.committee import client as committee_client

    _, _, settings = _open_round(message, context)
    return committee_client.deal(message.content, context, settings)


def _committee(message: Message, context: Context) -> RecordDict:
    """Do this node's part as a member of the committee."""
    from fedgrpo.federation.protocols.committee import member as committee_member

    _, _, settings = _open_round(message, context)
    return committee_member.work(message.content, context, settings)


def _cosign(message: Message, context: Context) -> RecordDict:
    """Vouch for the server's ledger as a member of the committee."""
    from fedgrpo.federation.protocols.committee import cosigning

    _, _, settings = _open_round(message, context)
    return cosigning.vouch(message.content, context, settings)


def _open_round(message: Message, context: Context) -> tuple[NodeMemory, Header, Settings]:
    """Take up the round that a message after training belongs to, under its settings."""
    memory, settings = NodeMemory(context.state), Settings.from_run_config(context.run_config)
    header = Header(context.run_id, memory.round)
    check_header(message.content, header)
    memory.check_settings(settings.fingerprint())
    return memory, header, settings
