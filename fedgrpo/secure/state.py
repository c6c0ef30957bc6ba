"""What a member remembers between two messages, as bytes.

A deployed node starts a fresh process for every message, so everything has to survive one. JSON
with byte strings in hexadecimal: readable anywhere and, unlike pickle, only data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.roster import PublicKeys, Roster

STAGES = ("keys", "shared", "masked", "done")
"""Stages of a member's part, in order."""
_FORMAT = 2


@dataclass
class Secrets:
    """Everything that must never leave the node as it is. Empty means: not yet, or no longer."""

    seed: bytes = b""
    """Self-mask seed."""
    sharing_key: bytes = b""
    """Private X25519 key under which peers encrypt shares."""
    masking_key: bytes = b""
    """Private X25519 key of the pairwise masks."""
    seed_shares: dict[int, bytes] = field(default_factory=dict)
    """Shares of the sharers' seeds, by dealer, this member's own included."""
    key_shares: dict[int, bytes] = field(default_factory=dict)
    """Shares of the peers' masking keys, by dealer."""


@dataclass
class MemberState:
    """One member in one round."""

    run_id: int
    round: int
    node_id: int
    minimum: int
    order: bytes
    """SHA-256 of what this member was ordered to compute, 32 bytes."""
    public_keys: PublicKeys
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    stage: str = STAGES[0]
    roster: Roster | None = None

    def to_bytes(self) -> bytes:
        """Serialise, secrets in clear."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, default=bytes.hex).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> MemberState:
        """Invert :meth:`to_bytes`.

        Raises
        ------
        ProtocolError
            If ``data`` is anything else. Its content is not repeated.
        """
        try:
            tree = json.loads(data)
            if tree.pop("format") != _FORMAT or tree["stage"] not in STAGES:
                raise ValueError
            tree["order"] = bytes.fromhex(tree["order"])
            tree["public_keys"] = _public_keys(tree["public_keys"])
            tree["secrets"] = _secrets(tree["secrets"])
            tree["roster"] = None if tree["roster"] is None else _roster(tree["roster"])
            return cls(**tree)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ProtocolError(
                f"stored state of a masking member ({len(data)} bytes) is unreadable",
                cure="sit this round out; the next one starts afresh",
            ) from None


def _public_keys(tree: dict[str, str]) -> PublicKeys:
    return PublicKeys(**{name: bytes.fromhex(text) for name, text in tree.items()})


def _roster(tree: dict[str, Any]) -> Roster:
    keys = tuple(_public_keys(item) for item in tree.pop("keys"))
    order = bytes.fromhex(tree.pop("order"))
    return Roster(members=tuple(tree.pop("members")), keys=keys, order=order, **tree)


def _secrets(tree: dict[str, Any]) -> Secrets:
    def by_dealer(shares: dict[str, str]) -> dict[int, bytes]:
        return {int(dealer): bytes.fromhex(share) for dealer, share in shares.items()}

    return Secrets(
        seed=bytes.fromhex(tree["seed"]),
        sharing_key=bytes.fromhex(tree["sharing_key"]),
        masking_key=bytes.fromhex(tree["masking_key"]),
        seed_shares=by_dealer(tree["seed_shares"]),
        key_shares=by_dealer(tree["key_shares"]),
    )
