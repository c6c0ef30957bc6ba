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

from fedgrpo.ground.codec import Digest, Key
from fedgrpo.ground.errors import LedgerError
from fedgrpo.ledger.checkpoints import Cosignature, cosign
from fedgrpo.ledger.entries import (
    Entry,
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
    """What a witness knows of a run from elsewhere than the ledger."""

    run: str
    fingerprint: str
    round: int = 0
    """The last one in which this member was ordered to compute; 0 if there was none."""
    order: bytes = b""
    """Digest of what it was ordered then, see :func:`fedgrpo.ledger.entries.order_digest`."""

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


@dataclass(frozen=True)
class Signed:
    """What a member has signed, as it is kept: nothing in it is secret."""

    head: bytes
    """The ledger's first entry, canonical JSON."""
    size: int
    """Entries, the head included."""
    complete: tuple[Key, ...]
    """Roots of complete subtrees, largest first."""
    last: Digest
    """Hash of the last entry."""

    def replay(self) -> Replay:
        """Take up the ledger where it was left; raises LedgerError if this version cannot."""
        tree = MerkleTree.resumed(self.size, list(self.complete))
        return Replay(entries=[from_tree(json.loads(self.head))], tree=tree, last=self.last)


class Witness:
    """What a member has signed of one run's ledger.

    Parameters
    ----------
    expected:
        What the ledger must be of.
    signed:
        What was kept; None before the first signature.
    """

    def __init__(self, expected: Expected, signed: Signed | None = None) -> None:
        self._expected = expected
        self._read = signed.replay() if signed else Replay()

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

        Adversary: see the module. Keep :attr:`signed` on disk before the signature leaves.

        Parameters
        ----------
        seed:
            The member's Ed25519 private key, 32 bytes.
        """
        return cosign(self._read.checkpoint, seed)

    @property
    def signed(self) -> Signed:
        """What is to be kept."""
        tree, head = self._read.tree, canonical(to_tree(self._read.head))
        return Signed(head, tree.size, tree.complete, self._read.last)
