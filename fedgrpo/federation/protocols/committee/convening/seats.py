"""Seats and dealing keys, signed for one place: who speaks for a member, or for a client.

Adversary: any client, a server that passes on whatever it likes, and one malicious member. A seat
is signed by the member's own long-term key, which settings and sites pin; so nobody else takes it,
sets its attempts, or says that it is ready. A dealing key is signed by a key that the node derives
from its secret, and that every member pins at first sight for the run; so nobody else takes a
node's place later in the run. Each signature is over its kind, its whole content, the settings, the
run, the round and the node's id, so it serves nowhere else. Server and members check all of them.

Nothing here tells a client that the server invented from another one: keys are pinned at first
sight, as sites are not invited by theirs.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedgrpo.federation.protocols.committee.convening.plan import write_keys
from fedgrpo.ground.codec import Digest, Key, matching
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.committee import Identity, MemberKeys
from fedgrpo.secure.committee.steps import MEMBERS
from fedgrpo.settings import Settings

MOST_ATTEMPTS = 2**20
"""Attempts in one round. Each round counts anew: a member that names the last one ends its round,
and no later one."""

SIGNATURE_BYTES = 64
_PROTOCOL = b"fedgrpo committee seats v1"
_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Place:
    """Where signatures hold: one round of one run under one set of settings."""

    settings: str
    run: str
    round: int
    """From 1."""

    @classmethod
    def of(cls, settings: Settings, run: str, round: int) -> Place:
        """Name a round of a run."""
        return cls(settings.fingerprint(), run, round)

    def statement(self, kind: str, node: int, *content: bytes) -> bytes:
        """Return what a node signs: each part with its length, so that no two say the same."""
        where = (kind, self.settings, self.run, str(self.round), str(node))
        parts = [*(word.encode() for word in where), *content]
        return _PROTOCOL + b"".join(_LENGTH.pack(len(part)) + part for part in parts)


@dataclass(frozen=True)
class Seat:
    """What a member says of itself, and its signature."""

    keys: MemberKeys
    node: int
    """Flower's id of the node that holds the keys."""
    attempt: int = 0
    """Number of its last attempt in this round; 0 before the first."""
    ready: tuple[Digest, ...] = ()
    """Names (64 hex digits) of the seatings whose component keys it holds."""
    seating: Annotated[str, matching("([0-9a-f]{64})?")] = ""
    """Name of the seating under which it has begun this round; empty if it has not."""
    signature: bytes = field(default=b"", repr=False)

    def signed(self, identity: Identity, place: Place) -> Seat:
        """Return the seat with its member's signature."""
        key = Ed25519PrivateKey.from_private_bytes(identity.signing)
        return replace(self, signature=key.sign(self._statement(place)))

    def check(self, place: Place) -> None:
        """Refuse a seat that its member did not sign for this place; raises ProtocolError."""
        if self.attempt not in range(MOST_ATTEMPTS):
            raise ProtocolError(
                f"a seat names attempt {self.attempt}, a round has {MOST_ATTEMPTS}",
                cure="have that member checked",
            )
        if not _holds(self.keys.signing, self.signature, self._statement(place)):
            raise ProtocolError(
                f"the seat of member {self.keys.signing.hex()[:12]} at node {self.node} is not "
                "signed by that member for this round",
                cure="somebody poses as that member: see who runs the node",
            )

    def _statement(self, place: Place) -> bytes:
        content = (write_keys(self.keys), b"%d" % self.attempt, self.seating.encode())
        return place.statement("seat", self.node, *content, *(s.encode() for s in self.ready))


@dataclass(frozen=True)
class DealingKey:
    """The key by which a client signs what it deals in one round, signed by its node and by itself.

    By itself, too, or another node could claim a key that it has seen in an interrupted round, and
    be in the roster in the place of the one that has it.
    """

    key: Key
    """Ed25519 public key of the round."""
    identity: Key
    """The node's Ed25519 public key of the run."""
    node: int
    """Flower's id of the node."""
    signature: bytes = field(default=b"", repr=False)
    """By the identity, and by the key; 64 bytes each."""

    @classmethod
    def make(cls, key: bytes, identity: bytes, node: int, place: Place) -> DealingKey:
        """Sign for a place; ``key`` and ``identity`` are the private ones, 32 bytes each."""
        private = [Ed25519PrivateKey.from_private_bytes(one) for one in (identity, key)]
        made = cls(public_signing_key(key), public_signing_key(identity), node)
        statement = made._statement(place)
        return replace(made, signature=b"".join(one.sign(statement) for one in private))

    def holds(self, place: Place) -> bool:
        """Whether the node signed it for this place, and has it."""
        statement, half = self._statement(place), SIGNATURE_BYTES
        return _holds(self.identity, self.signature[:half], statement) and _holds(
            self.key, self.signature[half:], statement
        )

    def _statement(self, place: Place) -> bytes:
        return place.statement("dealing key", self.node, self.key, self.identity)


def check_seating(seats: tuple[Seat, ...], place: Place) -> tuple[MemberKeys, ...]:
    """Return the members of a seating, each of whom has signed its seat; raises ProtocolError if
    these are not four seats of four nodes, or one is not proven.
    """
    if len(seats) != MEMBERS or len({seat.node for seat in seats}) != MEMBERS:
        raise ProtocolError(
            f"a seating of {len(seats)} seats at {len({seat.node for seat in seats})} nodes",
            cure=f"seat {MEMBERS} members, each at a node of its own",
        )
    for seat in seats:
        seat.check(place)
    return tuple(seat.keys for seat in seats)


def proven_clients(
    clients: Mapping[int, DealingKey], place: Place, pins: Mapping[int, str]
) -> dict[int, DealingKey]:
    """Return the clients whose dealing keys are proven.

    Parameters
    ----------
    clients:
        Dealing keys by number in the round.
    pins:
        Identities (hex) of the run's nodes as they were first seen, by node.

    Returns
    -------
    dict[int, DealingKey]
        Those that are signed for this place by the identity that is pinned for their node, if any
        is; of those, nodes and identities that are there twice are left out.
    """
    known = {
        number: client
        for number, client in clients.items()
        if pins.get(client.node, client.identity.hex()) == client.identity.hex()
        and client.holds(place)
    }
    nodes = Counter(client.node for client in known.values())
    identities = Counter(client.identity for client in known.values())
    return {
        number: client
        for number, client in known.items()
        if nodes[client.node] == identities[client.identity] == 1
    }


def public_signing_key(private: bytes) -> bytes:
    """Return the Ed25519 public key (32 bytes) of a private one."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _holds(key: bytes, signature: bytes, statement: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True
