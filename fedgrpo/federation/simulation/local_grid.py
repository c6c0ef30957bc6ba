"""A federation in one process: Flower's Grid without Ray, sockets or waiting, for tests and
notebooks.

Messages are copied on their way in both directions, so that nothing is shared between server and
nodes but what was sent. Nodes run one after another, at once when a message is pushed.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedgrpo.federation.simulation.flower_internals import (
    SERVER_NODE,
    Run,
    sent_as,
    sent_by,
    serve,
)
from fedgrpo.federation.wire.link import APP_RAISED
from fedgrpo.settings import Scalar

NODE_UNAVAILABLE = 5
"""Flower's error code for a node that went away."""


FIRST_NODE = 1001
"""Id of the first of nodes that are only counted; the others follow."""

Drop = Callable[[str, int], bool]
"""``(stage, node) -> whether the node goes away before this stage``."""

Tamper = Callable[[str, int, Message], "Message | list[Message]"]
"""``(stage, node, reply) -> what arrives instead``: another reply, none at all, or several."""


def _never(stage: str, node: int) -> bool:
    return False


def _as_sent(stage: str, node: int, reply: Message) -> Message:
    return reply


class LocalGrid(Grid):
    """Run a ClientApp for each of some nodes in this process.

    Parameters
    ----------
    client_app:
        What every node runs.
    nodes:
        Node ids, or how many.
    node_config:
        Configuration of a node by its position. Without it, nodes are those of a simulation:
        ``partition-id`` and ``num-partitions``.
    run_config:
        Flower's flat run configuration, the same on every node.
    drop:
        Lets a node go away before a stage: the server gets the SuperLink's error.
    tamper:
        Changes what arrives from a node.
    run_id:
        Identity of the run; a resumed run has a new one.

    Attributes
    ----------
    contexts:
        Each node's context by node id, whose ``state`` lives as long as the grid.
    online:
        Ids of nodes that can be reached now. May be changed.
    sent:
        ``(stage, node)`` of every message pushed, in order.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: int | Iterable[int],
        *,
        node_config: Callable[[int], Mapping[str, Scalar]] | None = None,
        run_config: Mapping[str, Scalar] | None = None,
        drop: Drop = _never,
        tamper: Tamper = _as_sent,
        run_id: int = 1,
    ) -> None:
        ids = list(range(FIRST_NODE, FIRST_NODE + nodes) if isinstance(nodes, int) else nodes)
        self.online = list(ids)
        self.sent: list[tuple[str, int]] = []
        self.contexts = {
            node: Context(
                run_id,
                node,
                dict(node_config(i))
                if node_config
                else {"partition-id": i, "num-partitions": len(ids)},
                RecordDict(),
                dict(run_config or {}),
            )
            for i, node in enumerate(ids)
        }
        self._client_app, self._drop, self._tamper = client_app, drop, tamper
        self._run = serve(run_id)
        self._replies: dict[str, list[Message]] = {}
        self._ids = itertools.count(1)

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; Flower prefers the constructor."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes that are online."""
        return list(self.online)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; the replies wait to be pulled."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Hand out replies, each once."""
        return [reply for key in message_ids for reply in self._replies.pop(key, [])]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull once: every reply that will ever come is there."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        message_id = f"message-{next(self._ids)}"
        sent_as(message, message_id)
        node, stage = message.metadata.dst_node_id, stage_of(message)
        self.sent.append((stage, node))
        if node not in self.online or self._drop(stage, node):
            self._replies[message_id] = [_unavailable(message)]
            return message_id
        arrived = self._tamper(stage, node, copy.deepcopy(self._run_app(message, node)))
        self._replies[message_id] = arrived if isinstance(arrived, list) else [arrived]
        return message_id

    def _run_app(self, message: Message, node: int) -> Message:
        try:
            return self._client_app(copy.deepcopy(message), self.contexts[node])
        except Exception as error:  # Flower, too, answers for an app that raises.
            return Message(Error(APP_RAISED, repr(error)), reply_to=message)


def stage_of(message: Message) -> str:
    """Name the stage that a message belongs to: train, share, mask, unmask, evaluate."""
    return message.metadata.message_type.rpartition(".")[2]


def _unavailable(message: Message) -> Message:
    reply = Message(Error(NODE_UNAVAILABLE, "Node unavailable"), reply_to=message)
    sent_by(reply, SERVER_NODE)
    return reply
