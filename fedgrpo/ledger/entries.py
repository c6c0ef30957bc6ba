"""What the ledger says: one head, one entry for each round, one end. Figures and hashes only.

Nothing in an entry is a client's own but its salted commitment, which says nothing without the
salt. No wall times: the same run has the same ledger.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fedgrpo.ground.errors import LedgerError
from fedgrpo.ground.records import Guarantee, Record

START = "0" * 64
"""What the head has for the hash of the entry before it."""


@dataclass(frozen=True, kw_only=True)
class Head(Record):
    """The first entry: what stays the same through the run."""

    kind: Literal["head"] = "head"
    format: Literal[1] = 1
    previous: str = START
    run: str
    """Name of the run, the same after a resume."""
    public_key: str
    """The server's Ed25519 key (hex)."""
    settings: dict[str, Any]
    """All settings but the ``run`` section."""
    fingerprint: str
    """Of the settings."""
    model: str
    """SHA-256 (hex) of base model and adapter layout."""
    basis: str
    """SHA-256 (hex) of the adapter's frozen tensors."""
    adapter: str
    """SHA-256 (hex) of the adapter's values at the start."""
    version: str
    """Version of fedgrpo."""
    code: str
    """SHA-256 (hex) of fedgrpo's source files."""


@dataclass(frozen=True, kw_only=True)
class RoundEntry(Record):
    """One round, completed or aborted."""

    kind: Literal["round"] = "round"
    previous: str = START
    """SHA-256 (hex, with RFC 6962's leaf prefix) of the entry before."""
    round: int
    model: str
    basis: str
    settings: str
    """Fingerprint of the settings."""
    adapter: str
    """Hash of the adapter that the round began with."""
    result: str
    """Hash of the adapter that the round ended with; the same for an aborted round."""
    cohort: int
    """Clients that were asked."""
    finished: int
    """Clients whose release is in the result."""
    groups: int
    """Group means that the rule saw."""
    rule: str
    trim: int
    """Group means dropped at either end."""
    clipping_norm: float
    noise: str
    """Who adds it."""
    noise_multiplier: float
    """0 without differential privacy."""
    epsilon: tuple[Guarantee, ...]
    """Spent so far, for each unit and adversary."""
    aborted: str
    """Why the round changed nothing, else empty."""
    protocol: str
    """How releases were brought together."""
    version: str
    commitments: tuple[str, ...]
    """Salted commitments of the clients in the result to their releases, see
    :func:`fedgrpo.ledger.commitment`.
    """
    committee: tuple[str, ...] = ()
    """Ed25519 keys (hex) of the four members of the committee that sat in the round and computed
    the result, in the order of the settings' list.
    """
    radius: float = 0.0
    """Of the ball that norms were checked against, in units of a release; 0 for none."""
    released: bool = True
    """Whether anything of the round can have come out; a round of a committee that opened nothing
    does not count for epsilon.
    """


@dataclass(frozen=True, kw_only=True)
class End(Record):
    """The last entry of a finished run."""

    kind: Literal["end"] = "end"
    previous: str = START
    rounds: int
    adapter: str
    """Hash of the final adapter's values."""
    files: dict[str, str]
    """SHA-256 (hex) of each file of the final adapter, by its path in the run directory."""


Entry = Head | RoundEntry | End

_ENTRIES: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


def canonical(tree: object) -> bytes:
    """Write JSON in one way only: sorted keys, no spaces, ASCII, numbers as Python writes them."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def to_tree(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON carries it."""
    tree: dict[str, Any] = json.loads(canonical(asdict(entry)))
    return tree


def from_tree(tree: object) -> Entry:
    """Read an entry.

    Raises
    ------
    LedgerError
        If it is none.
    """
    try:
        return _ENTRIES.validate_json(canonical(tree))
    except (ValidationError, ValueError):
        raise LedgerError("it is no entry of this version's ledger") from None


def order_digest(
    settings: str, model: str, basis: str, adapter: str, clipping_norm: float, radius: float
) -> bytes:
    """SHA-256 (32 bytes) of a round's order.

    Parameters
    ----------
    settings:
        Their fingerprint.
    model, basis, adapter:
        Hashes (hex) of base model and layout, frozen tensors, and the values that the round begins
        with.
    clipping_norm:
        L2 norm C of the round.
    radius:
        Of the ball that norms are checked against; 0 for none.
    """
    parts = [settings, [adapter, basis, model], clipping_norm, *([radius] if radius else [])]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def entered_order(entry: RoundEntry) -> bytes:
    """Return the digest of the order that a ledger's entry tells of."""
    return order_digest(
        entry.settings, entry.model, entry.basis, entry.adapter, entry.clipping_norm, entry.radius
    )
