"""One round trip to many nodes over Flower's Grid, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from fedgrpo.ground.errors import CohortError

T = TypeVar("T")

POLL_S = 0.2
"""Most seconds between two looks for replies. Flower's own ``send_and_receive`` looks every 3 s."""
_PATIENCE = 0.1
"""Share of the time waited so far after which to look again: short stages are seen at once."""

PULLED_BYTES = 64 << 20
"""Bytes of replies that are pulled at once: they are in memory together."""

SILENT = "no reply in time"
UNSENT = "message could not be sent"
TWICE = "answered twice"
LEFT_OUT = "left out by the strategy"


@dataclass(frozen=True)
class Replies(Generic[T]):
    """What came back from one round trip."""

    messages: dict[int, T]
    """What was kept of the one reply of each node that replied, with content or with an error, by
    the id of the node asked: the message itself, unless :func:`round_trip` was told otherwise."""
    failures: dict[int, str]
    """Why each other node has none."""

    @property
    def asked(self) -> int:
        """Nodes that were asked."""
        return len(self.messages) + len(self.failures)


def among(replies: Replies[Message], kept: Iterable[Message]) -> Replies[Message]:
    """Keep the replies that are among some messages; the other nodes count as failed."""
    ids = {reply.metadata.reply_to_message_id for reply in kept}
    messages = {
        node: reply
        for node, reply in replies.messages.items()
        if reply.metadata.reply_to_message_id in ids
    }
    left_out = dict.fromkeys(set(replies.messages) - set(messages), LEFT_OUT)
    return Replies(messages, replies.failures | left_out)


def as_it_is(_: int, reply: Message) -> Message:
    """Keep a reply as it came."""
    return reply


@dataclass
class Collection(Generic[T]):
    """How replies are collected.

    Attributes
    ----------
    keep:
        ``(node asked, reply) -> what is kept of it``, called as each reply comes: what is large in
        it need not stay in memory until the last has come.
    reply_bytes:
        Of a reply about, so that no more of them are pulled at once than fit the memory.
    poll_s:
        Most seconds between two looks.
    enough:
        Asked whenever replies have come and some are missing: whether to wait no longer.
    """

    keep: Callable[[int, Message], T]
    reply_bytes: int = 0
    poll_s: float = POLL_S
    enough: Callable[[Replies[T]], bool] | None = None

    def portions(self, pending: Set[str]) -> list[list[str]]:
        """Cut message ids into as many as are pulled at once."""
        ids = list(pending)
        most = max(1, PULLED_BYTES // self.reply_bytes) if self.reply_bytes else len(ids)
        return [ids[start : start + most] for start in range(0, len(ids), most)]


def round_trip(
    grid: Grid, messages: Sequence[Message], timeout: float, how: Collection[T]
) -> Replies[T]:
    """Send at most one message to each node and wait until all have replied or the time is over.

    A reply belongs to the node that was asked: errors made by the SuperLink name the SuperLink as
    their source, so replies are matched by the message that they answer, never by who claims to
    have sent them. A node that answers twice has no valid reply.

    Parameters
    ----------
    grid:
        Flower's connection to the nodes.
    messages:
        To distinct nodes. Their ``ttl`` should be ``timeout``, or late nodes go on working for
        nothing.
    timeout:
        Seconds.
    how:
        What is kept of replies, and when there are enough.
    """
    nodes = [message.metadata.dst_node_id for message in messages]
    # Nothing accepted at all (a payload that the SuperLink refuses) comes back as an empty list.
    ids = list(grid.push_messages(messages)) if messages else []
    asked = dict(zip(ids, nodes, strict=True)) if len(ids) == len(nodes) else {}
    asked = {message_id: node for message_id, node in asked.items() if message_id}
    failures = dict.fromkeys(set(nodes) - set(asked.values()), UNSENT)
    found = _sorted_out(_collect(grid, asked, timeout, how), asked)
    return Replies(found.messages, failures | found.failures)


def _sorted_out(replied: Mapping[int, list[T]], asked: Mapping[str, int]) -> Replies[T]:
    """Tell the valid replies from the others."""
    failures = {node: TWICE for node, found in replied.items() if len(found) > 1}
    failures |= {node: SILENT for node in asked.values() if node not in replied}
    # In the order of asking, so that nothing depends on who was fastest.
    single = {node: replied[node][0] for node in asked.values() if len(replied.get(node, [])) == 1}
    return Replies(single, failures)


def _collect(
    grid: Grid, asked: dict[str, int], timeout: float, how: Collection[T]
) -> dict[int, list[T]]:
    """Pull until every message has a reply, enough have one, or the time is over."""
    asked_at = time.monotonic()
    deadline = asked_at + timeout
    replied: dict[int, list[T]] = {}
    pending = set(asked)
    while pending:
        before, portions = len(pending), how.portions(pending)
        for portion in portions:
            for reply in grid.pull_messages(portion):
                answered = reply.metadata.reply_to_message_id
                if answered in asked:
                    replied.setdefault(asked[answered], []).append(how.keep(asked[answered], reply))
                    pending.discard(answered)
        now = time.monotonic()
        came = 0 < len(pending) < before
        if now >= deadline or (came and how.enough and how.enough(_sorted_out(replied, asked))):
            break
        if pending:  # As many requests a second, however many portions there are.
            time.sleep(min(how.poll_s * len(portions), 0.005 + _PATIENCE * (now - asked_at)))
    return replied


def wait_for_nodes(
    grid: Grid, minimum: int, wait_s: float, *, poll_s: float = POLL_S
) -> tuple[int, ...]:
    """Wait until at least ``minimum`` nodes are online and return all that are, sorted; raises
    CohortError if there are fewer after ``wait_s`` seconds.
    """
    deadline = time.monotonic() + wait_s
    while len(online := sorted(grid.get_node_ids())) < minimum:
        if time.monotonic() >= deadline:
            raise CohortError(
                f"{len(online)} clients are online after {wait_s:g} s, {minimum} are needed",
                cure="start more nodes, raise federation.wait_s, or lower federation.min_clients "
                "or federation.cohort (with robust.trim or secure.bucket_size)",
            )
        time.sleep(poll_s)
    return tuple(online)
