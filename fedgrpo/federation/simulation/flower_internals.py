"""Everything that is used of Flower's private parts, in one file.

They may move with any release of Flower: ``pyproject.toml`` pins the minor version that the tests
ran with. To take a newer one, correct this file, pass the tests, and widen the pin.
"""

from __future__ import annotations

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import InflatableObject, get_all_nested_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["SERVER_NODE", "Run", "object_bytes", "sent_as", "sent_by", "serve"]

SERVER_NODE = 1
"""The SuperLink's own node id, the source of errors about nodes that went away."""


def serve(run_id: int) -> Run:
    """Make this process the server of a run: messages made from now on have it as their source."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
    return Run.create_empty(run_id)


def sent_as(message: Message, message_id: str) -> None:
    """Give a message the id that Flower's own grids give it when they push it."""
    message.metadata.__dict__["_message_id"] = message_id


def sent_by(message: Message, node: int) -> None:
    """Give a message the node that it comes from."""
    message.metadata.__dict__["_src_node_id"] = node


def object_bytes(thing: InflatableObject) -> int:
    """Bytes of a Flower object with all that it holds, each part once, as it is pushed."""
    return sum(len(part.deflate()) for part in get_all_nested_objects(thing).values())
