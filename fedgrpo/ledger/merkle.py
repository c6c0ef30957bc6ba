"""The Merkle tree of Certificate Transparency (RFC 6962, section 2.1), SHA-256.

Leaves and nodes are hashed with different first bytes, so that no node passes for a leaf: whoever
finds two lists of leaves with one root has found a collision of SHA-256.
"""

from __future__ import annotations

import hashlib
from functools import reduce


def leaf_hash(leaf: bytes) -> bytes:
    """Hash one leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """A tree that grows leaf by leaf and keeps only what its root needs: log2(size) hashes.

    Attributes
    ----------
    size:
        Leaves so far.
    """

    def __init__(self) -> None:
        self.size = 0
        # Roots of complete subtrees, largest first; their sizes are the powers of two in `size`.
        self._complete: list[bytes] = []

    @classmethod
    def resumed(cls, size: int, complete: list[bytes]) -> MerkleTree:
        """Return the tree of so many leaves whose :attr:`complete` subtrees have these roots."""
        tree = cls()
        tree.size, tree._complete = size, list(complete)
        return tree

    @property
    def complete(self) -> tuple[bytes, ...]:
        """Roots of complete subtrees, largest first: all that the tree needs to grow."""
        return tuple(self._complete)

    def append(self, leaf: bytes) -> None:
        """Add a leaf at the right end."""
        subtree, carried = leaf_hash(leaf), self.size
        while carried & 1:
            subtree, carried = node_hash(self._complete.pop(), subtree), carried >> 1
        self._complete.append(subtree)
        self.size += 1

    def copy(self) -> MerkleTree:
        """Return a tree that grows by itself from here."""
        return MerkleTree.resumed(self.size, self._complete)

    @property
    def root(self) -> bytes:
        """Root over all leaves, 32 bytes; of no leaves, the hash of nothing."""
        if not self._complete:
            return hashlib.sha256().digest()
        return reduce(lambda right, left: node_hash(left, right), reversed(self._complete))
