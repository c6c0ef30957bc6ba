"""The messages of a round over the committee, beside those of
:mod:`fedgrpo.federation.wire.messages`.

=========  ===============================================  ====================================
stage      to each node                                     back
=========  ===============================================  ====================================
train      the order to train                               :class:`Dealer`, a tag
deal       :class:`DealOrder`, to each participant           :class:`Dealt`, a ciphertext a member
committee  :class:`Work`, to each member, step by step      :class:`Progress`
cosign     :class:`Growth` of the ledger, to each member    :class:`Vouched`
=========  ===============================================  ====================================

The server passes on ciphertexts only: those of clients to members, and members' to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fedgrpo.federation.protocols.committee.convening.seats import DealingKey, Place, Seat
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import MemberKeys
from fedgrpo.secure.committee.compute.planes import Words
from fedgrpo.secure.committee.steps import MEMBERS

DEAL, COMMITTEE, COSIGN = "query.deal", "query.committee", "query.cosign"
"""Flower's types of the messages."""
TOSS, AGGREGATE, GO_ON, ABANDON = "toss", "aggregate", "go-on", "abandon"
"""Tasks of a member: toss the seating's keys, begin a round, take messages, end it."""

NOBODY = -1
"""Number of the lost member where none is."""

Lost = Annotated[int, range(NOBODY, MEMBERS).__contains__]
"""Number of a member that is gone, or NOBODY."""

_Four = Annotated[tuple[bytes, ...], lambda parts: len(parts) == MEMBERS]

Post = Mapping[int, list[bytes]]
"""Messages by the other member, in order: by sender on their way in, by receiver on their way out.
"""


@dataclass(frozen=True)
class Dealer:
    """What a node says of itself once it has trained."""

    dealing: DealingKey
    """The key by which it signs what it deals in this round."""
    seat: Seat | None
    """If it can be a member."""

    def check(self, place: Place, node: int) -> None:
        """Refuse what this very node did not sign for this place; raises ProtocolError."""
        nodes = {self.dealing.node} | ({self.seat.node} if self.seat else set())
        if nodes != {node} or not self.dealing.holds(place):
            raise ProtocolError(
                f"node {node} shows a dealing key that it did not sign for this round",
                cure="leave that node out",
            )
        if self.seat:
            self.seat.check(place)


@dataclass(frozen=True)
class DealOrder:
    """Who computes, and whose releases are dealt to them."""

    seats: tuple[Seat, ...]
    """Of the four members that compute this round."""
    clients: Mapping[int, DealingKey]
    """Dealing keys by number in the round."""


@dataclass(frozen=True)
class Dealt:
    """A client's four ciphertexts; what is in them is for the members to judge."""

    ciphertexts: _Four


@dataclass(frozen=True)
class Work:
    """What the server asks of one member."""

    task: str
    attempt: int = 0
    """Number of the attempt in the round, where one begins."""
    seats: tuple[Seat, ...] = ()
    """Of the four members, where an attempt begins."""
    clients: Mapping[int, DealingKey] = field(default_factory=dict)
    dealt: Mapping[int, bytes] = field(default_factory=dict)
    """Ciphertexts for this member by client."""
    lost: Lost = NOBODY
    """A member that is gone, where the attempt is to end."""
    post: Post = field(default_factory=dict)

    @property
    def members(self) -> tuple[MemberKeys, ...]:
        """Keys of the four members."""
        return tuple(seat.keys for seat in self.seats)

    @property
    def roster(self) -> dict[int, bytes]:
        """Keys of the round by client, as a dealing is named by them."""
        return roster_of(self.clients)


@dataclass(frozen=True)
class Progress:
    """How far one member has come."""

    done: bool
    post: Post = field(default_factory=dict)
    lost: Lost = NOBODY
    """A member that this one lost on a direct link."""
    gave_up: bool = False
    """Whether it ended, other than by that loss, when its part of the result was out."""
    released: bool = False
    """Whether its part of the result, or on a direct link its confirmation, was out when it ended.
    """
    clients: tuple[int, ...] = ()
    """Whose releases are in the result."""
    totals: Words | None = None
    """The opened totals, uint64, shape (size,)."""


@dataclass(frozen=True)
class Growth:
    """What the server's ledger has grown by."""

    start: int
    """Entries before these lines."""
    lines: tuple[bytes, ...]
    """Each with its line break."""


@dataclass(frozen=True)
class Vouched:
    """Up to which size a member vouches for the ledger."""

    size: int
    """Entries, the head included."""
    signature: str
    """Over the checkpoint (hex); empty if the growth begins behind what the member has seen."""


def roster_of(clients: Mapping[int, DealingKey]) -> dict[int, bytes]:
    """Return the clients' keys of the round by number."""
    return {number: client.key for number, client in clients.items()}
