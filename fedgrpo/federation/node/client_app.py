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
from fedgrpo.federation.protocols import node_side
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.wire.codec import Header, check_header
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import PROTOCOLS
from fedgrpo.site.node_folder import check_free, node_folder

if TYPE_CHECKING:
    # Loaded by the train handler only: a deployed node starts a process for every message.
    from fedgrpo.federation.node.clients.interfaces import ClientFactory

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
        :class:`~fedgrpo.federation.node.clients.local_clients.LocalClients`, which train on this
        node's prompts.
    minimum_bucket:
        Least number of clients among which this one's update may be hidden. The run's
        ``secure.bucket_size`` counts too, whichever is larger.
    clock:
        By which answers leave; None takes the machine's own.

    Returns
    -------
    ClientApp
        Answers ``train``, and ``query.NAME`` for each message that the run's protocol names in its
        description, :mod:`fedgrpo.settings.protocols`.
    """
    app = ClientApp()

    def train(message: Message, context: Context) -> RecordDict:
        from fedgrpo.federation.node import training
        from fedgrpo.federation.node.clients.local_clients import LocalClients

        factory = client_factory or LocalClients()
        node = training.Node(factory, minimum_bucket, clock or SystemClock())
        return training.train(message, context, node)

    app.train()(answering(train))
    for name in {name for protocol in PROTOCOLS.values() for name in protocol.messages}:
        app.query(name)(answering(_later(name)))
    return app


def _later(name: str) -> Handler:
    """Answer a message of a round after training as the run's protocol does.

    It is refused while a release is being made: as if nothing were computed, whatever is.

    Adversary: a server that would learn how long computing took by asking until it succeeds.
    """

    def answer(message: Message, context: Context) -> RecordDict:
        settings = Settings.from_run_config(context.run_config)
        check_free(node_folder(context.node_config, settings))
        memory = NodeMemory(context.state)
        check_header(message.content, Header(context.run_id, memory.round))
        memory.check_settings(settings.fingerprint())
        handler = node_side(settings).handlers.get(name)
        if handler is None:
            raise ProtocolError(
                f"{name} is no message of protocol {settings.aggregation.protocol}",
                cure="send what the run's protocol asks for",
            )
        return handler(message.content, context, settings)

    return answer
