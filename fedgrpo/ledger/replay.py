"""Reading a ledger's bytes: every hash and signature is computed again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from fedgrpo.ground.errors import LedgerError
from fedgrpo.ledger.checkpoints import Checkpoint, is_signed, sign
from fedgrpo.ledger.entries import START, Entry, Head, RoundEntry, canonical, from_tree, to_tree
from fedgrpo.ledger.merkle import MerkleTree, leaf_hash

_KEYS = {"entry", "root", "signature"}


@dataclass
class Replay:
    """A ledger as far as it was read."""

    entries: list[Entry] = field(default_factory=list)
    """Oldest first; the first is the :class:`~fedgrpo.ledger.entries.Head`."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """The signed one after each entry."""
    tree: MerkleTree = field(default_factory=MerkleTree)
    """Over all entries."""
    last: str = START
    """Hash of the last entry, which the next one repeats."""
    length: int = 0
    """Bytes of whole lines that were read."""

    @property
    def head(self) -> Head:
        """The first entry; LedgerError if there is none."""
        if not self.entries or not isinstance(self.entries[0], Head):
            raise LedgerError("the ledger has no head")
        return self.entries[0]

    @property
    def members(self) -> set[str]:
        """Signing keys (hex) of members that computed any of the rounds."""
        rounds = (entry for entry in self.entries if isinstance(entry, RoundEntry))
        return {key for entry in rounds for key in entry.committee}

    @property
    def checkpoint(self) -> Checkpoint:
        """What there is to sign; LedgerError if there is nothing."""
        return Checkpoint(self.head.run, self.tree.size, self.tree.root.hex())

    def signed_line(self, entry: Entry, seed: bytes) -> bytes:
        """Return the line, with its line break, by which an entry joins this ledger."""
        linked = to_tree(replace(entry, previous=self.last))
        grown = self.tree.copy()
        grown.append(canonical(linked))
        run = entry.run if isinstance(entry, Head) else self.head.run
        checkpoint = Checkpoint(run, grown.size, grown.root.hex())
        signed = {
            "entry": linked,
            "root": checkpoint.root,
            "signature": sign(checkpoint, seed),
        }
        return canonical(signed) + b"\n"

    def take(self, line: bytes) -> None:
        """Read the next line, with its line break.

        Raises
        ------
        LedgerError
            Says what about it does not fit.
        """
        tree = _parse(line)
        entry = from_tree(tree["entry"])
        if isinstance(entry, Head) == bool(self.entries):
            raise LedgerError("a head stands at the beginning, and only there")
        if entry.previous != self.last:
            raise LedgerError("it does not follow the entry before it")
        leaf = canonical(tree["entry"])
        self.tree.append(leaf)
        self.entries.append(entry)
        checkpoint = self.checkpoint
        if tree["root"] != checkpoint.root:
            raise LedgerError("its root is not that of the entries up to it")
        if not is_signed(checkpoint, str(tree["signature"]), self.head.public_key):
            raise LedgerError("its signature is not the server's")
        self.checkpoints.append(checkpoint)
        self.last = leaf_hash(leaf).hex()
        self.length += len(line)


def replay(content: bytes, name: str = "the ledger") -> Replay:
    """Read a ledger and compute every hash and check every signature on the way.

    Adversary: whoever changed the bytes without the server's key. Any change is rejected: a line is
    accepted only as the one way to write what it says, everything it says but root and signature is
    in the leaf, and the signature is over the root of all leaves. That the lines at the end are all
    there is for the reader to know: see :func:`fedgrpo.ledger.verify`.

    Raises
    ------
    LedgerError
        Points at the first line that does not fit.
    """
    read = Replay()
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            read.take(line)
        except LedgerError as error:
            raise LedgerError(f"{name}, line {number}: {error.problem}", cure=CURE) from None
    if not read.entries:
        raise LedgerError(f"{name} is empty", cure=CURE)
    return read


CURE = "take the run's record from this entry on as unproven; compare with another copy"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError):
        raise LedgerError("it is no JSON, or not whole") from None
    if not isinstance(tree, dict) or set(tree) != _KEYS:
        raise LedgerError("it does not consist of entry, root and signature")
    try:
        written = canonical(tree) + b"\n"
    except (ValueError, RecursionError):
        written = b""
    if written != line:
        raise LedgerError("it is not written as the ledger writes it")
    return tree
