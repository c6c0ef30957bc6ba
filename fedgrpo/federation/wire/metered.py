"""Flower's connection to the nodes, with a meter: how many bytes a round moved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid


class MeteredGrid:
    """Passes everything on, and counts the payload of every message.

    Parameters
    ----------
    grid:
        Flower's own.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._bytes = {"sent": 0, "received": 0}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def take(self) -> dict[str, int]:
        """Bytes since the last call: ``sent`` to nodes, ``received`` from them; without the
        transport's own framing.
        """
        counted, self._bytes = self._bytes, {"sent": 0, "received": 0}
        return counted

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Flower's Grid."""
        listed = list(messages)
        self._bytes["sent"] += sum(map(payload, listed))
        return self._grid.push_messages(listed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See Flower's Grid."""
        found = list(self._grid.pull_messages(message_ids))
        self._bytes["received"] += sum(map(payload, found))
        return found


def payload(message: Message) -> int:
    """Bytes of everything that a message's records carry; 0 of one that is an error."""
    if not message.has_content():
        return 0
    size = 0
    for record in message.content.values():
        if isinstance(record, ArrayRecord):
            size += sum(len(array.data) for array in record.values())
        elif isinstance(record, ConfigRecord):
            size += sum(map(_size, record.values()))
    return size


def _size(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list) else 8
