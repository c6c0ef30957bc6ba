"""What members and server of a bucket tell each other, and what makes a roster acceptable."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedgrpo.ground.codec import Key
from fedgrpo.ground.crypto import KEY_BYTES
from fedgrpo.ground.errors import ProtocolError

_PROTOCOL = "fedgrpo bucketed secure aggregation v3"


@dataclass(frozen=True)
class PublicKeys:
    """One member's ephemeral public values of one round, 32 bytes each."""

    sharing: Key
    """X25519 key under which peers encrypt shares for this member."""
    masking: Key
    """X25519 key from which pairwise masks are agreed."""
    seed_commitment: Key
    """SHA-256 commitment to the self-mask seed, so that a lying share of it is noticed."""

    def to_bytes(self) -> bytes:
        """Concatenate the three, 96 bytes."""
        return self.sharing + self.masking + self.seed_commitment


@dataclass(frozen=True)
class Roster:
    """A bucket as the server announces it, the same to each member."""

    run_id: int
    round: int
    bucket: int
    members: tuple[int, ...]
    """Node ids. A member's position decides which Shamir share is its own."""
    keys: tuple[PublicKeys, ...]
    """In the order of ``members``."""
    threshold: int
    """Members that must answer before a sum can be unmasked: a strict majority, at least 2."""
    order: bytes
    """SHA-256 of what all members were ordered to compute, 32 bytes: each compares it with its own
    order's, and derives its masks from it.
    """

    def keys_of(self, member: int) -> PublicKeys:
        """Public keys of a member."""
        return self.keys[self.members.index(member)]

    def peers_of(self, member: int) -> tuple[int, ...]:
        """Members other than this one."""
        return tuple(other for other in self.members if other != member)

    def context(self, purpose: str, *parties: int) -> bytes:
        """Bind a derived key to protocol, purpose, run, round, bucket, parties and whole roster.

        Two members that were shown different rosters, or computed by different orders, derive
        different keys, so their shares do not decrypt.
        """
        text = f"{self.threshold}|{','.join(map(str, self.members))}|".encode()
        keys = b"".join(keys.to_bytes() for keys in self.keys)
        digest = hashlib.sha256(text + self.order + keys).digest()
        names = (_PROTOCOL, purpose, self.run_id, self.round, self.bucket, *parties)
        return "|".join(map(str, names)).encode() + b"|" + digest


@dataclass(frozen=True)
class Revealed:
    """One survivor's answer: for each sharer a share of its seed or of its key, never of both."""

    seed_shares: dict[int, bytes]
    """``{survivor: share of its self-mask seed}``, 33 bytes each, the member's own included."""
    key_shares: dict[int, bytes]
    """``{dropped member: share of its private masking key}``, 33 bytes each."""


def commitment_context(run_id: int, round: int, node_id: int) -> bytes:
    """Context of a seed commitment, which is made before the bucket is known."""
    return f"{_PROTOCOL}|seed commitment|{run_id}|{round}|{node_id}|".encode()


def check_roster(roster: Roster) -> None:
    """Refuse a roster that no member and no server may use.

    Raises
    ------
    ProtocolError
        On fewer than two members, a member or key named twice, a wrong number or length of keys, a
        digest of the order that is not 32 bytes, or a threshold that is no strict majority, below 2
        or above the number of members.
    """
    count, threshold = len(roster.members), roster.threshold
    if len(set(roster.members)) != count:
        raise refusal(roster, f"names a member twice: {roster.members}")
    if len(roster.order) != KEY_BYTES:
        raise refusal(roster, f"has {len(roster.order)} bytes for the order's digest, not 32")
    if len(roster.keys) != count:
        raise refusal(roster, f"has {len(roster.keys)} public keys for {count} members")
    if threshold < 2 or 2 * threshold <= count or threshold > count:
        raise refusal(
            roster,
            f"has threshold {threshold} for {count} members; it must be a strict majority, at "
            f"least 2 and at most {count}",
        )
    for member, keys in zip(roster.members, roster.keys, strict=True):
        if {len(keys.sharing), len(keys.masking), len(keys.seed_commitment)} != {KEY_BYTES}:
            raise refusal(roster, f"has public keys of member {member} that are not 32 bytes each")
    if len({key for keys in roster.keys for key in (keys.sharing, keys.masking)}) != 2 * count:
        raise refusal(roster, "uses one public key twice")


def refusal(roster: Roster, problem: str) -> ProtocolError:
    """Name the bucket in an error about its roster."""
    return ProtocolError(
        f"roster of run {roster.run_id}, round {roster.round}, bucket {roster.bucket} {problem}",
        cure="announce distinct participants with the keys that they sent and a majority threshold",
    )
