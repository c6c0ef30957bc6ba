"""A member's own view of a run's ledger: what it needs to sign only what extends what it signed.

Adversary: a server that shows two ledgers of one run to different readers, or takes entries back.
A witness keeps the tree of what it has signed, log2(size) hashes, and takes each next line only if
it follows from those (:meth:`fedgrpo.ledger.Replay.take`): no proof of consistency is needed, since
it computes the root over all entries itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedgrpo.ground.errors import LedgerError
from fedgrpo.ledger.checkpoints import Cosignature, cosign
from fedgrpo.ledger.entries import (
    Entry,
    Head,
    RoundEntry,
    canonical,
    entered_order,
    from_tree,
    to_tree,
)
from fedgrpo.ledger.merkle import MerkleTree
from fedgrpo.ledger.replay import Replay


@dataclass(frozen=True)
class Expected:
    """What a witness knows of a run from elsewhere than the ledger.

    Attributes
    ----------
    run:
        Its name.
    fingerprint:
        Of its settings.
    round:
        The last one in which this member was ordered to compute; 0 if there was none.
    order:
        Digest of what it was ordered then, see :func:`fedgrpo.ledger.entries.order_digest`.
    """

    run: str
    fingerprint: str
    round: int = 0
    order: bytes = b""

    def check(self, entry: Entry) -> None:
        """Refuse an entry that tells of another order than this member followed.

        Raises
        ------
        LedgerError
            With the round.
        """
        if not isinstance(entry, RoundEntry) or entry.round != self.round:
            return
        if entered_order(entry) != self.order:
            raise LedgerError(
                f"round {entry.round} was ordered otherwise than the ledger says: another adapter, "
                "clipping norm or settings",
                cure="have the server's operator explain what the others were ordered",
            )


class Witness:
    """What a member has signed of one run's ledger.

    Parameters
    ----------
    expected:
        What the ledger must be of.
    kept:
        From :meth:`to_json`; empty before the first signature.
    """

    def __init__(self, expected: Expected, kept: str = "") -> None:
        self._expected = expected
        self._read = _restored(json.loads(kept)) if kept else Replay()

    @property
    def size(self) -> int:
        """Entries signed so far, the head included."""
        return self._read.tree.size

    def take(self, start: int, lines: Sequence[bytes]) -> None:
        """Read on in the ledger.

        Parameters
        ----------
        start:
            Entries before the first of these lines.
        lines:
            Each with its line break. What was read before is passed over.

        Raises
        ------
        LedgerError
            If the lines do not follow what was read before, or the ledger is of another run, of
            other settings, was signed by another key than before, or tells of another order than
            this member followed.
        """
        if start > self.size or start + len(lines) < self.size:
            raise LedgerError(
                f"entries {start + 1} to {start + len(lines)} do not extend the {self.size} "
                "that this member has signed",
                cure="have the server's operator explain what became of the others",
            )
        for line in lines[self.size - start :]:
            self._read.take(line)
            self._expected.check(self._read.entries[-1])
            self._read.entries[1:] = []
            self._read.checkpoints.clear()
        head = self._read.head
        if (head.run, head.fingerprint) != (self._expected.run, self._expected.fingerprint):
            raise LedgerError(
                f"the ledger is of run {head.run[:12]} with settings {head.fingerprint[:12]}, this "
                f"one is run {self._expected.run[:12]} with {self._expected.fingerprint[:12]}",
                cure="compare the settings of server and node",
            )

    def sign(self, seed: bytes) -> Cosignature:
        """Sign what was read, of which there must be some.

        Adversary: see the module. Keep :meth:`to_json` on disk before the signature leaves.

        Parameters
        ----------
        seed:
            The member's Ed25519 private key, 32 bytes.
        """
        return cosign(self._read.checkpoint, seed)

    def to_json(self) -> str:
        """Serialise: nothing in it is secret."""
        tree = self._read.tree
        kept = {
            "head": to_tree(self._read.head),
            "size": tree.size,
            "complete": [root.hex() for root in tree.complete],
            "last": self._read.last,
        }
        return canonical(kept).decode()


def _restored(kept: dict[str, Any]) -> Replay:
    head = from_tree(kept["head"])
    if not isinstance(head, Head):
        raise LedgerError("what this member has signed begins with no head")
    tree = MerkleTree.resumed(kept["size"], [bytes.fromhex(root) for root in kept["complete"]])
    return Replay(entries=[head], tree=tree, last=kept["last"])
