"""The messages of a round over the committee, beside those of
:mod:`fedgrpo.federation.wire.messages`.

=========  ===============================================  ====================================
stage      to each node                                     back
=========  ===============================================  ====================================
train      the order to train                               :class:`Dealer`, a tag
deal       :class:`DealOrder`, to each participant             four ciphertexts, one for each member
committee  :class:`Work`, to each member, step by step      :class:`Progress`
cosign     :class:`Growth` of the ledger, to each member    :class:`Vouched`
=========  ===============================================  ====================================

The server passes on ciphertexts only: those of clients to members, and members' to each other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedgrpo.federation.protocols.committee.plan import KEYS_BYTES, read_keys, write_keys
from fedgrpo.federation.protocols.committee.seats import DealingKey, Place, Seat
from fedgrpo.federation.wire.messages import (
    BODY,
    HEADER,
    TAG,
    Header,
    Tag,
    read_header,
    write_header,
    write_tag,
)
from fedgrpo.federation.wire.records import (
    array,
    array_record,
    config_record,
    pairs,
    scalar,
    values,
)
from fedgrpo.ground.crypto import KEY_BYTES
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

_ENTRY = struct.Struct("<qQ")
_BETWEEN = ","
_NAME = re.compile("[0-9a-f]{64}")
_DEALT, _TOTALS = "dealt", "totals"

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

    header: Header
    seats: tuple[Seat, ...]
    """Of the four members that compute this round."""
    clients: Mapping[int, DealingKey]
    """Dealing keys by number in the round."""


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
    lost: int = NOBODY
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
    lost: int = NOBODY
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


def write_dealer(header: Header, dealer: Dealer, tag: Tag) -> RecordDict:
    """Write a node's public keys and tag: all that leaves it after training."""
    seats = (dealer.seat,) if dealer.seat else ()
    content = _message(header, _who(seats, {0: dealer.dealing}))
    content[TAG] = write_tag(tag)
    return content


def read_dealer(content: RecordDict) -> Dealer:
    """Read a node's public keys; raises ProtocolError."""
    seats, dealing = _read_who(config_record(content, BODY))
    if len(seats) > 1 or set(dealing) != {0}:
        raise ProtocolError("a node with several seats or keys", cure="leave that node out")
    return Dealer(dealing[0], seats[0] if seats else None)


def write_deal(order: DealOrder) -> RecordDict:
    """Write the order to deal."""
    return _message(order.header, _who(order.seats, order.clients))


def read_deal(content: RecordDict) -> DealOrder:
    """Read the order to deal; raises ProtocolError."""
    return DealOrder(read_header(content), *_read_who(config_record(content, BODY)))


def write_dealt(header: Header, ciphertexts: tuple[bytes, ...]) -> RecordDict:
    """Write a client's four ciphertexts."""
    return _message(header, {_DEALT: list(ciphertexts)})


def read_dealt(content: RecordDict) -> tuple[bytes, ...]:
    """Read a client's four ciphertexts; what is in them is for the members to judge."""
    dealt = values(config_record(content, BODY), _DEALT, bytes)
    if len(dealt) != MEMBERS:
        raise ProtocolError(f"{len(dealt)} ciphertexts for {MEMBERS} members", cure="leave it out")
    return tuple(dealt)


def write_work(header: Header, work: Work) -> RecordDict:
    """Write what is asked of a member."""
    content = _message(
        header,
        {
            "task": work.task,
            "attempt": work.attempt,
            "lost": work.lost,
            **_who(work.seats, work.clients),
            **_post(work.post),
        },
    )
    content[_DEALT] = ConfigRecord({"nodes": list(work.dealt), _DEALT: list(work.dealt.values())})
    return content


def read_work(content: RecordDict) -> Work:
    """Read what is asked of a member; raises ProtocolError."""
    body = config_record(content, BODY)
    seats, clients = _read_who(body)
    return Work(
        task=scalar(body, "task", str),
        attempt=scalar(body, "attempt", int),
        seats=seats,
        clients=clients,
        dealt=pairs(config_record(content, _DEALT), "nodes", _DEALT, bytes),
        lost=scalar(body, "lost", int),
        post=_read_post(body),
    )


def write_progress(header: Header, progress: Progress) -> RecordDict:
    """Write how far a member has come."""
    content = _message(
        header,
        {
            "done": progress.done,
            "lost": progress.lost,
            "gave-up": progress.gave_up,
            "released": progress.released,
            "clients": list(progress.clients),
            **_post(progress.post),
        },
    )
    if progress.totals is not None:
        content[_TOTALS] = ArrayRecord({_TOTALS: Array(progress.totals)})
    return content


def read_progress(content: RecordDict, size: int) -> Progress:
    """Read how far a member has come; raises ProtocolError."""
    body = config_record(content, BODY)
    totals = None
    if _TOTALS in content:
        totals = array(array_record(content, _TOTALS), _TOTALS, "uint64", (size,))
    lost = scalar(body, "lost", int)
    if lost not in range(NOBODY, MEMBERS):
        raise ProtocolError(f"a report of having lost member {lost}", cure="leave that node out")
    return Progress(
        done=scalar(body, "done", bool),
        post=_read_post(body),
        lost=lost,
        gave_up=scalar(body, "gave-up", bool),
        released=scalar(body, "released", bool),
        clients=tuple(values(body, "clients", int)),
        totals=totals,
    )


def write_growth(header: Header, growth: Growth) -> RecordDict:
    """Write what the ledger has grown by."""
    return _message(header, {"start": growth.start, "lines": list(growth.lines)})


def read_growth(content: RecordDict) -> Growth:
    """Read what the ledger has grown by; raises ProtocolError."""
    body = config_record(content, BODY)
    return Growth(scalar(body, "start", int), tuple(values(body, "lines", bytes)))


def write_vouched(header: Header, vouched: Vouched) -> RecordDict:
    """Write a member's signature."""
    return _message(header, {"size": vouched.size, "signature": vouched.signature})


def read_vouched(content: RecordDict) -> Vouched:
    """Read a member's signature, which is still to be checked; raises ProtocolError."""
    body = config_record(content, BODY)
    return Vouched(scalar(body, "size", int), scalar(body, "signature", str))


def write_post(post: Post) -> bytes:
    """Write messages by peer as bytes, to be kept."""
    flat = [(peer, message) for peer in sorted(post) for message in post[peer]]
    return b"".join(_ENTRY.pack(peer, len(message)) + message for peer, message in flat)


def read_post(data: bytes) -> dict[int, list[bytes]]:
    """Invert :func:`write_post`."""
    post: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        peer, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        post.setdefault(peer, []).append(data[at : at + length])
        at += length
    return post


def _message(header: Header, body: dict[str, object]) -> RecordDict:
    return RecordDict({HEADER: write_header(header), BODY: ConfigRecord(body)})  # type: ignore[arg-type]


def _who(seats: tuple[Seat, ...], clients: Mapping[int, DealingKey]) -> dict[str, object]:
    keys = clients.values()
    return {
        "members": [write_keys(seat.keys) for seat in seats],
        "seats": [seat.node for seat in seats],
        "attempts": [seat.attempt for seat in seats],
        "ready": [_BETWEEN.join(seat.ready) for seat in seats],
        "seatings": [seat.seating for seat in seats],
        "signatures": [seat.signature for seat in seats],
        "clients": list(clients),
        "keys": [client.key for client in keys],
        "identities": [client.identity for client in keys],
        "nodes": [client.node for client in keys],
        "dealing": [client.signature for client in keys],
    }


def _read_who(body: ConfigRecord) -> tuple[tuple[Seat, ...], dict[int, DealingKey]]:
    seats = _rows(
        values(body, "members", bytes),
        values(body, "seats", int),
        values(body, "attempts", int),
        values(body, "ready", str),
        values(body, "seatings", str),
        values(body, "signatures", bytes),
    )
    clients = _rows(
        values(body, "clients", int),
        values(body, "keys", bytes),
        values(body, "identities", bytes),
        values(body, "nodes", int),
        values(body, "dealing", bytes),
    )
    return tuple(_seat(*seat) for seat in seats), _keyed(clients)


def _seat(keys: bytes, node: int, attempt: int, ready: str, seating: str, signature: bytes) -> Seat:
    names = tuple(filter(None, ready.split(_BETWEEN)))
    if len(keys) != KEYS_BYTES:
        raise ProtocolError("a member's keys of a wrong length", cure="leave that node out")
    if not all(_NAME.fullmatch(name) for name in (*names, *filter(None, [seating]))):
        raise ProtocolError("a seat with a malformed name", cure="leave that node out")
    return Seat(read_keys(keys), node, attempt, names, seating, signature)


def _keyed(clients: list[tuple[Any, ...]]) -> dict[int, DealingKey]:
    found = {number: DealingKey(*client) for number, *client in clients}
    keys = [key for client in found.values() for key in (client.key, client.identity)]
    if len(found) != len(clients) or any(len(key) != KEY_BYTES for key in keys):
        raise ProtocolError("a malformed roster of clients", cure="leave that node out")
    return found


def _rows(*columns: list[Any]) -> list[tuple[Any, ...]]:
    if len({len(column) for column in columns}) != 1:
        raise ProtocolError("lists of different lengths", cure="leave that node out")
    return list(zip(*columns, strict=True))


def _post(post: Post) -> dict[str, object]:
    flat = [(peer, message) for peer in sorted(post) for message in post[peer]]
    return {"peers": [peer for peer, _ in flat], "post": [message for _, message in flat]}


def _read_post(body: ConfigRecord) -> dict[int, list[bytes]]:
    peers, messages = values(body, "peers", int), values(body, "post", bytes)
    if len(peers) != len(messages):
        raise ProtocolError("messages without their peers", cure="leave that node out")
    post: dict[int, list[bytes]] = {}
    for peer, message in zip(peers, messages, strict=True):
        post.setdefault(peer, []).append(message)
    return post
