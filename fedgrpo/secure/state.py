"""What a member remembers between two messages, as bytes.

A deployed node starts a fresh process for every message, so everything has to survive one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fedgrpo.ground.codec import Folded, fold, unfold
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure.roster import PublicKeys, Roster

STAGES = ("keys", "shared", "masked", "done")
"""Stages of a member's part, in order."""


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
    stage: Annotated[str, STAGES.__contains__] = STAGES[0]
    roster: Roster | None = None

    def to_bytes(self) -> bytes:
        """Serialise, secrets in clear."""
        return fold(self).to_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> MemberState:
        """Invert :meth:`to_bytes`.

        Raises
        ------
        ProtocolError
            If ``data`` is anything else. Its content is not repeated.
        """
        try:
            return unfold(cls, Folded.from_json(data, {}))
        except ProtocolError as error:
            raise ProtocolError(
                f"stored state of a masking member is unreadable: {error.problem}",
                cure="sit this round out; the next one starts afresh",
            ) from None
