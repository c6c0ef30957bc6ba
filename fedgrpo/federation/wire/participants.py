"""Who finished local training, in an order that a resumed run finds again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict

from fedgrpo.federation.wire.codec import Header, decode
from fedgrpo.federation.wire.exchange import Replies
from fedgrpo.federation.wire.link import Answers, read_answers
from fedgrpo.federation.wire.messages import Tag, read_kept_basis
from fedgrpo.ground.errors import ProtocolError

T = TypeVar("T")

TWICE = "another node goes by the same name"


@dataclass(frozen=True)
class Participant(Generic[T]):
    """A node's answer to the order to train."""

    tag: Tag
    """Its name in this run, and its commitment."""
    value: T
    """Its keys, or its release."""


def read_participants(
    replies: Replies[Message], header: Header, read: Callable[[int, RecordDict], T]
) -> Answers[Participant[T]]:
    """Read the answers to the order to train, ordered by the nodes' names.

    Flower gives the nodes of a resumed simulation other ids; their names are the same. Nodes that
    share a name are left out. An attacker cannot make an honest node's its own: only that node and
    the server know it.
    """
    answers = read_answers(
        replies, header, lambda node, c: Participant(decode(Tag, c), read(node, c))
    )
    names = Counter(participant.tag.name for participant in answers.values.values())
    twice = {n for n, participant in answers.values.items() if names[participant.tag.name] > 1}
    ordered = sorted(answers.values.items(), key=lambda item: item[1].tag.name)
    return Answers(
        {node: participant for node, participant in ordered if node not in twice},
        answers.failures | dict.fromkeys(twice, TWICE),
    )


def keeping(replies: Replies[Message], basis: str) -> frozenset[int]:
    """Nodes that say that they have kept the frozen tensors of this hash. Whoever says so and has
    not refuses the next order, and gets them with the one after that.
    """
    found = set()
    for node, reply in replies.messages.items():
        with contextlib.suppress(ProtocolError):
            if reply.has_content() and read_kept_basis(reply.content) == basis:
                found.add(node)
    return frozenset(found)
