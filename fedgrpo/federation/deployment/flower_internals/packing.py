"""A message's content as one record, and back.

Flower sends a message, its list of records, each record and each array as objects of their own: a
request for each, one after the other, on every hop. Packed, a message is three objects.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Written
from flwr.serverapp import Grid

_WHOLE, _BYTES = "fedgrpo.whole", "bytes"
MOST_BYTES = 1 << 20
"""Larger content travels in pieces, as Flower cuts it."""


def packed(message: Message) -> Message:
    """The message with its content in one record; itself where it has none, or much."""
    if not message.has_content():
        return message
    content = recorddict_to_proto(message.content).SerializeToString()
    if len(content) > MOST_BYTES:
        return message
    return _with(message, RecordDict({_WHOLE: ConfigRecord({_BYTES: content})}))


def unpacked(message: Message) -> Message:
    """Invert :func:`packed`.

    Adversary: whoever sent it. What cannot be read stays as it came, and is then no message of this
    package to whoever reads it.
    """
    record = message.content.get(_WHOLE) if message.has_content() else None
    content = record.get(_BYTES) if isinstance(record, ConfigRecord) else None
    if not isinstance(content, bytes):
        return message
    try:
        return _with(message, recorddict_from_proto(Written.FromString(content)))
    except Exception:  # Of protobuf's own classes, or of Flower's, for what is forged.
        return message


def _with(message: Message, content: RecordDict) -> Message:
    """A copy that shares the metadata, into which Flower writes a message's id."""
    made = copy.copy(message)
    made.content = content
    return made


def pack_all(grid: Grid) -> None:
    """Have a grid pack what it sends, and unpack what it receives."""
    push, pull = grid.push_messages, grid.pull_messages

    def push_packed(messages: Iterable[Message]) -> Iterable[str]:
        return push([packed(message) for message in messages])

    def pull_unpacked(message_ids: Iterable[str]) -> Iterable[Message]:
        return [unpacked(message) for message in pull(message_ids)]

    grid.push_messages, grid.pull_messages = push_packed, pull_unpacked  # type: ignore[method-assign]
