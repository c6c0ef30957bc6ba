"""One round trip to many nodes over Flower's Grid, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fedgrpo.ground.errors import CohortError

POLL_S = 0.2
"""Most seconds between two looks for replies. Flower's own ``send_and_receive`` looks every 3 s."""
_PATIENCE = 0.1
"""Share of the time waited so far after which to look again: short stages are seen at once."""

SILENT = "no reply in time"
UNSENT = "message could not be sent"
TWICE = "answered twice"
LEFT_OUT = "left out by the strategy"


@dataclass(frozen=True)
class Replies:
    """What came back from one round trip."""

    messages: dict[int, Message]
    """The one reply of each node that replied, with content or with an error, by the id of the node
    asked."""
    failures: dict[int, str]
    """Why each other node has none."""

    @property
    def asked(self) -> int:
        """Nodes that were asked."""
        return len(self.messages) + len(self.failures)

    def among(self, kept: Iterable[Message]) -> Replies:
        """Keep the replies that are among some messages; the other nodes count as failed."""
        ids = {reply.metadata.reply_to_message_id for reply in kept}
        messages = {
            node: reply
            for node, reply in self.messages.items()
            if reply.metadata.reply_to_message_id in ids
        }
        left_out = dict.fromkeys(set(self.messages) - set(messages), LEFT_OUT)
        return Replies(messages, self.failures | left_out)


def round_trip(
    grid: Grid,
    messages: Sequence[Message],
    timeout: float,
    *,
    poll_s: float = POLL_S,
    enough: Callable[[Replies], bool] | None = None,
) -> Replies:
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
    enough:
        Asked whenever replies have come and some are missing: whether to wait no longer.
    """
    nodes = [message.metadata.dst_node_id for message in messages]
    # Nothing accepted at all (a payload that the SuperLink refuses) comes back as an empty list.
    ids = list(grid.push_messages(messages)) if messages else []
    asked = dict(zip(ids, nodes, strict=True)) if len(ids) == len(nodes) else {}
    asked = {message_id: node for message_id, node in asked.items() if message_id}
    failures = dict.fromkeys(set(nodes) - set(asked.values()), UNSENT)
    so_far = None if enough is None else lambda replied: enough(_sorted_out(replied, asked))
    found = _sorted_out(_collect(grid, asked, timeout, poll_s, so_far), asked)
    return Replies(found.messages, failures | found.failures)


def _sorted_out(replied: Mapping[int, list[Message]], asked: Mapping[str, int]) -> Replies:
    """Tell the valid replies from the others."""
    failures = {node: TWICE for node, found in replied.items() if len(found) > 1}
    failures |= {node: SILENT for node in asked.values() if node not in replied}
    # In the order of asking, so that nothing depends on who was fastest.
    single = {node: replied[node][0] for node in asked.values() if len(replied.get(node, [])) == 1}
    return Replies(single, failures)


def _collect(
    grid: Grid,
    asked: dict[str, int],
    timeout: float,
    poll_s: float,
    enough: Callable[[dict[int, list[Message]]], bool] | None,
) -> dict[int, list[Message]]:
    """Pull until every message has a reply, enough have one, or the time is over."""
    asked_at = time.monotonic()
    deadline = asked_at + timeout
    replied: dict[int, list[Message]] = {}
    pending = set(asked)
    while pending:
        before = len(pending)
        for reply in grid.pull_messages(list(pending)):
            answered = reply.metadata.reply_to_message_id
            if answered in asked:
                replied.setdefault(asked[answered], []).append(reply)
                pending.discard(answered)
        now = time.monotonic()
        if now >= deadline or (enough and 0 < len(pending) < before and enough(replied)):
            break
        if pending:
            time.sleep(min(poll_s, 0.005 + _PATIENCE * (now - asked_at)))
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
