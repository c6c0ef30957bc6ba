"""The server's line to its nodes in one round: ask, and read what comes back, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedgrpo.federation.wire.codec import Header, check_header
from fedgrpo.federation.wire.exchange import Collection, Replies, round_trip
from fedgrpo.federation.wire.messages import read_refusal
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.site.refusals import CURES, Refusal

T = TypeVar("T")

APP_RAISED = 2
"""Flower's error code for an app that failed: of a node that is there."""

_REASON_LENGTH = 200
"""Characters kept of what a node says about its failure."""


@dataclass(frozen=True)
class Answers(Generic[T]):
    """A value of each node whose reply is valid, and why each other node has none."""

    values: dict[int, T]
    failures: dict[int, str]
    lost: frozenset[int] = frozenset()
    """Nodes among the failures that did not answer at all: gone or silent, not refusing."""

    @property
    def asked(self) -> int:
        """Nodes that were asked."""
        return len(self.values) + len(self.failures)


@dataclass(frozen=True)
class Link:
    """The server's line to its nodes in one round."""

    grid: Grid
    """Flower's connection."""
    header: Header
    """Run and round, which every reply must repeat."""
    timeout: float
    """Seconds for one round trip."""

    def ask(
        self,
        message_type: str,
        contents: Mapping[int, RecordDict],
        read: Callable[[int, RecordDict], T],
        enough: Callable[[Mapping[int, T]], bool] | None = None,
        reply_bytes: int = 0,
    ) -> Answers[T]:
        """Send each node its content and read what comes back as it comes, see
        :func:`read_answers`. Once ``enough`` says so of the valid replies, nobody waits for the
        others. ``reply_bytes`` is about what a reply is long.
        """
        messages = [self.message(message_type, node, content) for node, content in contents.items()]
        how = Collection(
            lambda node, reply: _read(node, reply, self.header, read),
            reply_bytes,
            enough=None if enough is None else lambda came: enough(_answers(came).values),
        )
        return _answers(round_trip(self.grid, messages, self.timeout, how))

    def message(self, message_type: str, node: int, content: RecordDict) -> Message:
        """Address a message that expires with the time limit: no late node works for nothing."""
        return Message(
            content,
            dst_node_id=node,
            message_type=message_type,
            ttl=self.timeout,
            group_id=str(self.header.round),
        )


def read_answers(
    replies: Replies[Message], header: Header, read: Callable[[int, RecordDict], T]
) -> Answers[T]:
    """Read replies one by one: a bad one costs its sender the round, and nobody else.

    Parameters
    ----------
    replies:
        From :func:`round_trip`.
    header:
        What every reply must carry.
    read:
        ``(node, content) -> value``; raises ProtocolError on content that it refuses.
    """
    each = {node: _read(node, reply, header, read) for node, reply in replies.messages.items()}
    return _answers(Replies(each, replies.failures))


@dataclass(frozen=True)
class _Failed:
    """Why a reply is no valid one, and whether its node is there at all."""

    reason: str
    lost: bool = False


def _read(
    node: int, reply: Message, header: Header, read: Callable[[int, RecordDict], T]
) -> T | _Failed:
    if not reply.has_content():
        reason = _printable(reply.error.reason or f"error code {reply.error.code}")
        return _Failed(reason, lost=reply.error.code != APP_RAISED)
    try:
        check_header(reply.content, header)
        if code := read_refusal(reply.content):
            return _Failed(refusal_words(code))
        return read(node, reply.content)
    except ProtocolError as error:
        return _Failed(_printable(f"bad reply: {error.problem}"))


def _answers(replies: Replies[T | _Failed]) -> Answers[T]:
    values: dict[int, T] = {}
    failures, lost = dict(replies.failures), set(replies.failures)
    for node, each in replies.messages.items():
        if isinstance(each, _Failed):
            failures[node] = each.reason
            lost |= {node} if each.lost else set()
        else:
            values[node] = each
    return Answers(values, failures, frozenset(lost))


def refusal_words(code: Refusal) -> str:
    """Say why a node refused, and what can be done."""
    return f"refused, {code}: {CURES[code]}"


def _printable(reason: str) -> str:
    """Tame text that a node wrote before it reaches logs and reports."""
    return "".join(c if c.isprintable() else " " for c in reason[:_REASON_LENGTH])
