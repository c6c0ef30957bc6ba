"""The tree is Certificate Transparency's own."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from fedgrpo.ledger.merkle import MerkleTree, leaf_hash

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
          "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Vectors of Certificate Transparency's reference implementation, MerkleTreeTest."""


def test_the_roots_are_those_of_certificate_transparencys_vectors() -> None:
    tree = MerkleTree()
    assert tree.root.hex() == hashlib.sha256().hexdigest()
    for leaf, root in zip(INPUTS, ROOTS, strict=True):
        tree.append(bytes.fromhex(leaf))
        assert tree.root.hex() == root


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_the_roots_are_those_of_an_independent_implementation(leaves: list[bytes]) -> None:
    ours, theirs = MerkleTree(), InmemoryTree(algorithm="sha256")
    for leaf in leaves:
        ours.append(leaf)
        assert theirs.get_leaf(theirs.append_entry(leaf)) == leaf_hash(leaf)
        assert ours.root == theirs.get_root()
        assert ours.size == theirs.get_size()


def test_a_copy_grows_by_itself() -> None:
    tree = MerkleTree()
    for leaf in (b"a", b"b", b"c"):
        tree.append(leaf)
    before = tree.root
    tree.copy().append(b"d")
    assert (tree.root, tree.size) == (before, 3)


@pytest.mark.parametrize("leaf", [b"", b"\x00", b"\x01" + bytes(64)])
def test_no_leaf_passes_for_a_node(leaf: bytes) -> None:
    assert leaf_hash(leaf) != hashlib.sha256(leaf).digest()
